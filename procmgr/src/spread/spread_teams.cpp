// SpreadProcess: team calls of its threads (team_call.h), at home and away.
// SPDX-License-Identifier: GPL-2.0-or-later
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

// A thread at home stands at the call's entry until the answer is there; the kernel then carries
// out nothing.
void SpreadProcess::begin_team_call(const ThreadPtr& thread) {
  thread->stands = Stands::kInTeamCall;
  parts_.pages->waits(thread->traced->tid());
  trace("asks", thread->traced->tid(), 0, team_words(thread->entry));
  count_team_call(thread, team_words(thread->entry));
  teams_.call(thread->traced->tid(), parts_.node.self, team_words(thread->entry),
              [this, tid = thread->traced->tid(), weak = std::weak_ptr(thread)](
                  int64_t result, const TeamWords& words) {
                if (counts()) counts()->end_team_call(tid);
                trace("is told", tid, result, words);
                auto thread = weak.lock();
                if (!thread || thread->stands != Stands::kInTeamCall) return;
                user_regs_struct none = thread->entry;
                set_team_words(none, words);
                none.orig_rax = ~0ULL;
                none.rax = static_cast<uint64_t>(result);
                thread->result = result;
                static_cast<void>(thread->traced->set_registers(none));
                resume(thread);
                if (!thread->phase.on_answer(team_words(thread->entry), result, words)) return;
                begin_phase(thread);
                count_phase(thread);
              });
}

// After the other members have been told that they go on.
void SpreadProcess::begin_phase(const ThreadPtr& thread) {
  parts_.node.loop.post([this, alive = std::weak_ptr(alive_), weak = std::weak_ptr(thread)] {
    auto thread = weak.lock();
    if (alive.expired() || !thread || !thread->traced || thread->node != parts_.node.self) return;
    parts_.pages->begin_phase(thread->traced->tid(), thread->phase.number());
  });
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

}  // namespace krg
