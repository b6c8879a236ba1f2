// UsageAccounts: what children that executed on other nodes used, per parent, in the way of the
// kernel: a child's usage counts for its parent once the parent has waited for it, and then for the
// grandparent once the parent has been waited for. The kernel does that for what ran here; these
// accounts hold only what it does not know. Nothing tells when a process is reaped: it is seen,
// when somebody asks, by the process being gone.
//
// Owned by RemoteUsage. Threads: the loop's thread. Source: getrusage(2), wait4(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "krg/procmgr/remote_usage.h"

namespace krg {

// The processes of this node as the kernel has them; a seam for tests.
class ProcessTree {
 public:
  struct Place {
    uint64_t start_time = 0;  // 0 when there is no such process; a zombie still has one
    pid_t parent = 0;         // 0 or 1 (krgd) above the session's processes
  };
  virtual ~ProcessTree() = default;
  virtual Place find(pid_t pid) const = 0;
};

class UsageAccounts {
 public:
  // `tree` outlives this object.
  explicit UsageAccounts(const ProcessTree& tree) : tree_(tree) {}

  // A child of this node that executed elsewhere, in part at least, ends or will: nobody has waited
  // for it yet. May be told of more than once, with what has come to it since.
  // Returns its ancestors, its parent first. REQUIRES: it still has its place in the tree (its
  // shadow lives).
  std::vector<pid_t> child_ends(pid_t shadow, const struct rusage& usage);
  // True when a wait of `pid` may find a child of which these accounts know something.
  bool concerns_waits_of(pid_t pid) const;
  // To be added to the RUSAGE_CHILDREN of `pid`; none: nothing.
  std::optional<struct rusage> of_children(pid_t pid);
  // To be added to the usage of `child`, which `pid` has just waited for.
  std::optional<struct rusage> of_waited_child(pid_t pid, pid_t child);
  // What `pid`, which has ended, is to be charged for beside what the kernel counted.
  std::optional<struct rusage> close(pid_t pid);

 private:
  struct Ended {
    pid_t pid;
    uint64_t start_time;
    struct rusage usage;
  };
  struct Account {
    uint64_t start_time;
    pid_t parent;
    uint64_t parent_start_time;
    bool has_total = false;
    struct rusage total {};  // of waited-for children
    std::vector<Ended> unreaped;
  };

  struct Ancestor {
    pid_t pid;
    ProcessTree::Place place;
  };

  bool is_gone(pid_t pid, uint64_t start_time) const {
    return tree_.find(pid).start_time != start_time;
  }
  std::vector<Ancestor> line_of(pid_t pid) const;
  Account& open(const Ancestor& process, uint64_t parent_start_time);
  Account* find(pid_t pid);
  static void add_unreaped(Account& account, const Ended& child);
  void settle(pid_t pid, Account& account);
  void charge(Account& account, const struct rusage& usage);
  void sweep();

  const ProcessTree& tree_;
  std::map<pid_t, Account> accounts_;
  unsigned ends_since_sweep_ = 0;
};

}  // namespace krg
