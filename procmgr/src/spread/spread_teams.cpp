// SpreadProcess: team calls of its threads (team_call.h), at home and away.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_process.h"
#include "spread/team_registers.h"

namespace krg {

// A thread at home stands at the call's entry until the answer is there; the kernel then carries
// out nothing.
void SpreadProcess::begin_team_call(const ThreadPtr& thread) {
  thread->stands = Stands::kInTeamCall;
  teams_.call(thread->traced->tid(), parts_.node.self, team_words(thread->entry),
              [this, weak = std::weak_ptr(thread)](int64_t result, const TeamWords& words) {
                auto thread = weak.lock();
                if (!thread || thread->stands != Stands::kInTeamCall) return;
                user_regs_struct none = thread->entry;
                set_team_words(none, words);
                none.orig_rax = ~0ULL;
                none.rax = static_cast<uint64_t>(result);
                thread->result = result;
                static_cast<void>(thread->traced->set_registers(none));
                resume(thread);
              });
}

// The original goes on standing; the answer is all registers of the thread.
void SpreadProcess::answer_team_call(const ThreadPtr& thread, const user_regs_struct& registers,
                                     Messenger::Reply reply) {
  auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
  teams_.call(thread->traced->tid(), thread->node, team_words(registers),
              [registers, shared](int64_t result, const TeamWords& words) {
                user_regs_struct answered = registers;
                set_team_words(answered, words);
                answered.rax = static_cast<uint64_t>(result);
                shared->ok({reinterpret_cast<const char*>(&answered), sizeof answered});
              });
}

}  // namespace krg
