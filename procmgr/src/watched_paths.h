// WatchedPaths: by what paths threads of this node have had inotify watch files: the kernel tells
// which files are watched, not where they are. What is here may be wrong by now, and is only tried.
//
// Threads: one at a time. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <map>
#include <set>
#include <string>
#include <vector>

namespace krg {

class WatchedPaths {
 public:
  static constexpr size_t kMost = 65536;  // beyond that those of threads that have ended go

  // `tid`: who has it watched; 0: a thread of another node.
  void add(pid_t tid, std::string path);
  // Those of `threads`, or of all others.
  std::vector<std::string> of(const std::set<pid_t>& threads) const;
  std::vector<std::string> of_others(const std::set<pid_t>& threads) const;

 private:
  void make_room();

  std::map<pid_t, std::set<std::string>> paths_;
  size_t count_ = 0;
};

}  // namespace krg
