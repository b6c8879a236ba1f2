// SPDX-License-Identifier: GPL-2.0-or-later
#include "watched_paths.h"

#include <csignal>
#include <iterator>
#include <utility>

namespace krg {

void WatchedPaths::add(pid_t tid, std::string path) {
  if (count_ >= kMost) make_room();
  if (count_ < kMost && paths_[tid].insert(std::move(path)).second) ++count_;
}

std::vector<std::string> WatchedPaths::of(const std::set<pid_t>& threads) const {
  std::vector<std::string> found;
  for (const pid_t tid : threads)
    if (const auto known = paths_.find(tid); known != paths_.end())
      found.insert(found.end(), known->second.begin(), known->second.end());
  return found;
}

std::vector<std::string> WatchedPaths::of_others(const std::set<pid_t>& threads) const {
  std::vector<std::string> found;
  for (const auto& [tid, paths] : paths_)
    if (!threads.contains(tid)) found.insert(found.end(), paths.begin(), paths.end());
  return found;
}

// Its group or children may still have the instance: only as many go as have to.
void WatchedPaths::make_room() {
  for (auto one = paths_.begin(); one != paths_.end() && count_ >= kMost;) {
    const bool has_ended = one->first == 0 || kill(one->first, 0) != 0;
    if (has_ended) count_ -= one->second.size();
    one = has_ended ? paths_.erase(one) : std::next(one);
  }
}

}  // namespace krg
