// SpreadProcess: team calls of its threads (team_call.h), at home and away.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "krg/runtime/log.h"
#include "spread/spread_process.h"
#include "spread/team_registers.h"

namespace krg {
namespace {

void trace(const char* what, pid_t tid, int64_t result, const TeamWords& w) {
  log_trace("teams", "thread {}: {} {}: op {} number {} key {:x} words {:x} {:x} {:x} {:x}", tid,
            what, result, w[0], w[1], w[2], w[3], w[4], w[5], w[6]);
}

}  // namespace

// A thread at home stands at the call's entry until the answer is there; the kernel carries out
// nothing.
void SpreadProcess::begin_team_call(const ThreadPtr& thread) {
  thread->stands = Stands::kInTeamCall;
  thread->patience = parts_.waiting.begin_wait();
  parts_.pages->waits(thread->traced->tid());
  trace("asks", thread->traced->tid(), 0, team_words(thread->entry));
  count_team_call(thread, team_words(thread->entry));
  teams_.call(thread->traced->tid(), parts_.node.self, team_words(thread->entry),
              [this, tid = thread->traced->tid(), weak = std::weak_ptr(thread)](
                  int64_t result, const TeamWords& words) {
                if (counts()) counts()->end_team_call(tid);
                trace("is told", tid, result, words);
                auto thread = weak.lock();
                if (thread) thread->patience.drop();
                if (!thread || thread->stands != Stands::kInTeamCall) return;
                user_regs_struct none = thread->entry;
                set_team_words(none, words);
                none.orig_rax = ~0ULL;
                none.rax = static_cast<uint64_t>(result);
                thread->result = result;
                static_cast<void>(thread->traced->set_registers(none));
                resume_behind_team_call(thread);
                if (!thread->phase.on_answer(team_words(thread->entry), result, words)) return;
                begin_phase(thread);
                count_phase(thread);
              });
}

// The next call of such a thread is likely to be another one: it is met without the stop behind
// this one. If it is none, the thread comes to it a second time.
void SpreadProcess::resume_behind_team_call(const ThreadPtr& thread) {
  if (is_stopped_ || thread->move) return resume(thread);
  thread->stands = Stands::kRunning;
  thread->traced->resume(kSystemCallsAreOurs);
}

void SpreadProcess::on_emulated_entry(const ThreadPtr& thread) {
  auto registers = thread->traced->registers();
  if (!registers) return;  // its end is told
  if (is_team_call(*registers)) return on_entry(thread, *registers);
  // There is a stop behind the call that was left out, too: nothing has been carried out by then.
  thread->entry = *registers;
  thread->number = registers->orig_rax;
  thread->result = 0;
  static_cast<void>(thread->traced->set_registers(before_the_call(*registers)));
  resume(thread);
}

// After the other members have been told that they go on.
void SpreadProcess::begin_phase(const ThreadPtr& thread) {
  beginning_.push_back(thread);
  parts_.node.loop.post([this, alive = std::weak_ptr(alive_)] {
    if (!alive.expired()) begin_phases();
  });
}

void SpreadProcess::begin_phases() {
  for (const auto& weak : std::exchange(beginning_, {})) {
    auto thread = weak.lock();
    if (!thread || !thread->traced || thread->node != parts_.node.self) continue;
    parts_.pages->begin_phase(thread->traced->tid(), thread->phase.number());
  }
}

// The original goes on standing; the answer is all registers of the thread.
void SpreadProcess::answer_team_call(const ThreadPtr& thread, const user_regs_struct& registers,
                                     Messenger::Reply reply) {
  auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
  trace("asks from away", thread->traced->tid(), 0, team_words(registers));
  count_team_call(thread, team_words(registers));
  teams_.call(thread->traced->tid(), thread->node, team_words(registers),
              [this, registers, shared, tid = thread->traced->tid(), weak = std::weak_ptr(thread)](
                  int64_t result, const TeamWords& words) {
                if (counts()) counts()->end_team_call(tid);
                trace("is told", tid, result, words);
                auto thread = weak.lock();
                if (thread && thread->phase.on_answer(team_words(registers), result, words))
                  count_phase(thread);
                user_regs_struct answered = registers;
                set_team_words(answered, words);
                answered.rax = static_cast<uint64_t>(result);
                if (thread) parts_.pages->publish(thread->node);
                ++answers_;
                shared->ok({reinterpret_cast<const char*>(&answered), sizeof answered});
              });
}

// --- barriers of members elsewhere ---------------------------------------------------------------

// Those of one node, together. They are told by one message, unless they have been before.
void SpreadProcess::arrived(NodeId from, std::vector<ArrivedMember> members, bool have_gone_on) {
  if (members.empty() ||
      is_put_off([this, from, members, have_gone_on] { arrived(from, members, have_gone_on); }))
    return;
  const uint64_t team = members.front().words[2];
  std::vector<pid_t> tids;
  for (const ArrivedMember& member : members) tids.push_back(member.tid);
  const auto may_go = may_go_.find(team);
  const bool are_told = have_gone_on || (may_go != may_go_.end() && may_go->second == tids);
  auto waits = std::make_shared<bool>(!are_told);
  arriving_ = tids;
  for (const ArrivedMember& member : members) {
    const auto found = threads_.find(member.tid);
    const ThreadPtr thread = found == threads_.end() ? nullptr : found->second;
    trace("has come elsewhere", member.tid, have_gone_on, member.words);
    if (thread) count_team_call(thread, member.words);
    teams_.call(
        member.tid, from, member.words,
        [this, from, team, tids, waits, asked = member.words, tid = member.tid,
         weak = std::weak_ptr(thread)](int64_t result, const TeamWords& words) {
          if (counts()) counts()->end_team_call(tid);
          auto thread = weak.lock();
          if (thread && thread->phase.on_answer(asked, result, words)) count_phase(thread);
          if (std::exchange(*waits, false)) let_go(from, team, tids, words[3]);
        },
        TeamServer::Told::kTogether);
  }
  arriving_.clear();
  begin_phases();  // before what those say that have gone on
}

void SpreadProcess::let_go(NodeId node, uint64_t team, const std::vector<pid_t>& members,
                           uint64_t word) {
  parts_.pages->publish(node);
  ++answers_;
  TeamGo tell;
  tell.set = set().value;
  tell.team = team;
  tell.word = word;
  const std::vector<int32_t> tids(members.begin(), members.end());
  static_cast<void>(parts_.node.messenger.send(
      node, tell, {reinterpret_cast<const char*>(tids.data()), tids.size() * sizeof tids.front()}));
}

// Nobody but members on one node is missing: they need not wait for this node. False: they are just
// coming.
bool SpreadProcess::let_last_go(const TeamServer::LastNode& last) {
  may_go_.erase(last.team);
  if (last.members.empty() || last.node == parts_.node.self) return true;
  for (pid_t tid : last.members)
    if (std::find(arriving_.begin(), arriving_.end(), tid) != arriving_.end()) return false;
  may_go_[last.team] = last.members;
  let_go(last.node, last.team, last.members, last.word);
  return true;
}

void SpreadProcess::tell_of_tasks(uint64_t team) {
  TeamHasTasks tell;
  tell.set = set().value;
  tell.team = team;
  for (NodeId node : parts_.nodes) static_cast<void>(parts_.node.messenger.send(node, tell));
}

}  // namespace krg
