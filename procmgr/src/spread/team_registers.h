// A team call's words in a thread's registers (team_call.h has their order).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include "krg/procmgr/team_call.h"

namespace krg {

inline TeamWords team_words(const user_regs_struct& r) {
  return {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, r.rbx, r.rbp, r.r12, r.r13, r.r14, r.r15};
}

inline void set_team_words(user_regs_struct& r, const TeamWords& words) {
  unsigned i = 0;
  for (auto* one : {&r.rdi, &r.rsi, &r.rdx, &r.r10, &r.r8, &r.r9, &r.rbx, &r.rbp, &r.r12, &r.r13,
                    &r.r14, &r.r15})
    *one = words[i++];
}

inline bool is_team_call(const user_regs_struct& registers) {
  return registers.orig_rax == kTeamCallNumber;
}

}  // namespace krg
