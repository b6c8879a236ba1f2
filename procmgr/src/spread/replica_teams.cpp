// Replica: team calls of its threads (team_call.h). Those that wait at a barrier are told of
// together. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/log.h"
#include "spread/replica.h"
#include "spread/team_registers.h"

namespace krg {

void Replica::begin_team_call(const ThreadPtr& thread, const user_regs_struct& call) {
  thread->asked = team_words(call);
  const auto op = static_cast<TeamOp>(thread->asked[0]);
  if (!is_one_way(op)) thread->patience = parts_.waiting.begin_wait();
  if (op == TeamOp::barrier && begin_barrier(thread, call)) return;
  if (op == TeamOp::dock) leave_team(thread->tid);
  call_at_home(thread, call);
  if (!is_one_way(op)) return;
  thread->awaits_answer = false;
  ++thread->calls;  // nobody waits for the answer
  answer(thread, 0);
  end_team_call(thread, 0, {});
}

void Replica::end_team_call(const ThreadPtr& thread, int64_t result, const TeamWords& words) {
  if (result < 0) return;
  if (static_cast<TeamOp>(thread->asked[0]) == TeamOp::dock && result == 1)
    barriers_.enter(thread->tid, thread->asked[2]);
  if (thread->phase.on_answer(thread->asked, result, words))
    parts_.pages.begin_phase(thread->traced->tid(), thread->phase.number());
}

// --- barriers -----------------------------------------------------------------------------------

// False: home is to be told of it by itself. So it is where the region may be cancelled.
bool Replica::begin_barrier(const ThreadPtr& thread, const user_regs_struct& call) {
  if (thread->asked[4] != 0) {
    leave_team(thread->tid);
    return false;
  }
  const auto told = barriers_.arrive(thread->tid, thread->asked[2], thread->asked[3]);
  if (!told) return false;
  parts_.pages.waits(thread->traced->tid());
  thread->awaits_answer = true;
  ++thread->calls;
  thread->at_barrier = call;
  if (told->members.empty()) return true;
  tell_arrivals(told->members, told->go_on);
  if (told->go_on) let_go(told->members, told->word);
  return true;
}

void Replica::tell_arrivals(const LocalBarriers::Members& members, bool go_on) {
  std::vector<ArrivedMember> arrived;
  for (pid_t tid : members) {
    const auto found = threads_.find(tid);
    if (found == threads_.end()) continue;
    ArrivedMember& one = arrived.emplace_back();
    one.tid = tid;
    one.words = team_words(found->second->at_barrier);
  }
  TeamArrivals tell;
  tell.set = parts_.set.value;
  tell.go_on = go_on;
  static_cast<void>(parts_.node.messenger.send(
      parts_.home, tell,
      {reinterpret_cast<const char*>(arrived.data()), arrived.size() * sizeof arrived.front()}));
}

void Replica::go(const TeamGo& tell, const LocalBarriers::Members& members) {
  const auto told = barriers_.go(tell.team, members, tell.word);
  let_go(told.members, told.word);
}

void Replica::let_go(const LocalBarriers::Members& members, uint64_t word) {
  TeamWords words{};
  words[3] = word;
  std::vector<ThreadPtr> gone_on;
  for (pid_t tid : members) {
    const auto found = threads_.find(tid);
    if (found == threads_.end() || !found->second->awaits_answer) continue;  // it has left
    const ThreadPtr& thread = found->second;
    log_trace("teams", "thread {} goes on, word {:x}", tid, word);
    thread->awaits_answer = false;
    thread->patience.drop();
    user_regs_struct answered = thread->at_barrier;
    set_team_words(answered, words);
    answered.rax = 0;
    answered.orig_rax = ~0ULL;
    static_cast<void>(thread->traced->set_registers(answered));
    thread->traced->resume(kSystemCallsAreOurs);
    gone_on.push_back(thread);
  }
  for (const ThreadPtr& thread : gone_on) end_team_call(thread, 0, words);
}

// The others' calls that wait here are made one by one.
void Replica::leave_team(pid_t tid) {
  make_calls(barriers_.leave(tid));
}

void Replica::has_tasks(uint64_t team) {
  make_calls(barriers_.dissolve(team));
}

void Replica::make_calls(const LocalBarriers::Members& members) {
  for (pid_t tid : members) {
    const auto found = threads_.find(tid);
    if (found != threads_.end() && found->second->awaits_answer)
      call_at_home(found->second, found->second->at_barrier);
  }
}

}  // namespace krg
