// WaitPolicy: how krgd waits while members of a spread process's teams do (OMP_WAIT_POLICY): a
// member that waits stands in a team call, so it is its node's krgd that looks for what it waits
// for, or blocks. Threads: the loop's thread. A value.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <string_view>

#include "krg/runtime/patience.h"

namespace krg {

struct WaitPolicy {
  Patience* patience = nullptr;  // of this node's loop; outlives those that wait
  Patience::Kind kind = Patience::Kind::kUsual;

  // A member waits as long as the claim stands.
  Patience::Claim begin_wait() const {
    if (!patience || kind == Patience::Kind::kUsual) return {};
    return patience->claim(kind);
  }
};

// By a value of OMP_WAIT_POLICY: active: endless; passive: none; another: the usual.
Patience::Kind patience_of(std::string_view policy);
// By the environment that its program began with.
Patience::Kind patience_of_process(pid_t pid);

}  // namespace krg
