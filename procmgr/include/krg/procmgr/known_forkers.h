// KnownForkers: what each fork and each exec of a child asks of the process that forks, kept for
// those that do so again and again (shells, make): three files of procfs cost more than all the
// rest of a fork that stays here.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <unordered_map>

#include "krg/procmgr/capability_table.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// As many are remembered, each with a descriptor.
inline constexpr size_t kMaxKnownForkers = 64;

class KnownForkers {
 public:
  // A program's file.
  struct Program {
    dev_t device = 0;
    ino_t inode = 0;
    auto operator<=>(const Program&) const = default;
  };
  struct Forker {
    pid_t pid = 0;
    CapabilitySets sets;
    Program program;
  };

  // `capabilities` outlives this.
  explicit KnownForkers(const CapabilityTable& capabilities) : capabilities_(capabilities) {}

  // The process that a thread belongs to. Errors: ESRCH, EACCES (its program is not to be seen).
  Result<Forker> of(pid_t tid);
  // Who forked `child`, whose parent is now `parent`: that one, or, when the child was orphaned
  // meanwhile, what can still be known of the one that died (pid 0): what it left to the child.
  Result<Forker> of_child(pid_t child, pid_t parent);
  // It executes another program now.
  void execs(pid_t pid) { known_.erase(pid); }

 private:
  struct Known {
    Forker forker;
    UniqueFd pidfd;  // tells that the number is still this process's
    uint64_t version;
  };
  void remember(const Forker& forker, uint64_t version);

  const CapabilityTable& capabilities_;
  std::unordered_map<pid_t, Known> known_;
};

}  // namespace krg
