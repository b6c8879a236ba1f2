// A team call as libkrgomp makes it (team_call.h). Any thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cerrno>
#include <cstdint>

#include "distant.h"

extern "C" long krg_omp_team_call(std::uint64_t* words);

namespace krg::omp::distant {

struct Call {
  std::uint64_t words[kTeamWords] = {};

  Call(TeamOp op, const void* key) {
    words[0] = std::uint64_t(op);
    words[2] = std::uint64_t(reinterpret_cast<std::uintptr_t>(key));
  }
  long make() {
    words[1] = ++this_thread().team_calls;
    long result = 0;
    do {
      result = krg_omp_team_call(words);
    } while (result == -EINTR);
    if (result < 0) fatal("krgd did not answer a call of a team on several nodes (%ld)", -result);
    return result;
  }
};

}  // namespace krg::omp::distant
