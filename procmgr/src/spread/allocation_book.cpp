// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/allocation_book.h"

#include <utility>

#include "krg/procmgr/process_table.h"

namespace krg {
namespace {

constexpr size_t kMostTold = 16384;

}  // namespace

void AllocationBook::add(pid_t pid, MemoryNames::Allocation told) {
  auto found = told_.find(pid);
  if (found == told_.end() || found->second.started != process_start_time(pid)) {
    std::erase_if(told_, [](const auto& entry) {
      return process_start_time(entry.first) != entry.second.started;
    });
    found = told_.emplace(pid, Told{.started = process_start_time(pid), .all = {}}).first;
  }
  std::vector<MemoryNames::Allocation>& all = found->second.all;
  if (all.size() == kMostTold) all.erase(all.begin(), all.begin() + kMostTold / 2);
  all.push_back(std::move(told));
}

std::vector<MemoryNames::Allocation> AllocationBook::take(pid_t pid) {
  auto found = told_.extract(pid);
  if (found.empty() || found.mapped().started != process_start_time(pid)) return {};
  return std::move(found.mapped().all);
}

}  // namespace krg
