// The sockets of a family that is restarted, made anew by its first process: those that listen are
// bound to the addresses that they had, connections between members are made again, by way of the
// listening socket where there is one; those whose other end is gone get one that will be closed.
// What was in flight krgd puts into them (procmgr/src/family/fill_sockets.h).
//
// Threads: one. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "krg/procmgr/process_family.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

struct RestartSockets {
  // Without contents. REQUIRES: those of a ProcessFamily.
  std::vector<FamilySocket> sockets;

  static RestartSockets parse(const nlohmann::json& sockets);

  struct Made {
    std::vector<UniqueFd> sockets;     // of each; none: no file has it
    std::vector<UniqueFd> other_ends;  // in the order of ProcessFamily::place_of_other_end()
  };
  // Errors: an address that cannot be had again.
  Result<Made> make() const;
};

}  // namespace krg
