// SPDX-License-Identifier: GPL-2.0-or-later
#include "flock_table.h"

#include <algorithm>
#include <vector>

namespace krg {

using What = FlockRequest::What;

bool FlockTable::can_have(const File& file, const FlockRequest& asked) {
  if (file.owners.empty()) return true;
  return asked.what == What::kShared &&
         std::none_of(file.owners.begin(), file.owners.end(),
                      [](const auto& owner) { return owner.second; });
}

void FlockTable::lock(uint64_t file, const FlockRequest& asked, uint64_t request,
                      std::function<void(Status)> done) {
  File& found = files_[file];
  found.owners.erase(asked.owner);
  if (asked.what != What::kUnlock && can_have(found, asked)) {
    found.owners[asked.owner] = asked.what == What::kExclusive;
    done({});
  } else if (asked.what == What::kUnlock) {
    done({});
  } else if (asked.waits) {
    found.waiters.push_back({asked, request, std::move(done)});
  } else {
    done(errno_error("locked by another", EWOULDBLOCK));
  }
  grant(file);
}

void FlockTable::release(uint64_t file, uint64_t owner) {
  auto found = files_.find(file);
  if (found == files_.end()) return;
  found->second.owners.erase(owner);
  grant(file);
}

void FlockTable::cancel(uint64_t request) {
  for (auto& [number, file] : files_) {
    auto waiter = std::find_if(file.waiters.begin(), file.waiters.end(),
                               [&](const Waiter& one) { return one.request == request; });
    if (waiter == file.waiters.end()) continue;
    const auto done = std::move(waiter->done);
    file.waiters.erase(waiter);
    const uint64_t changed = number;
    done(errno_error("interrupted", EINTR));
    return grant(changed);
  }
}

void FlockTable::grant(uint64_t number) {
  auto found = files_.find(number);
  if (found == files_.end()) return;
  File& file = found->second;
  std::vector<std::function<void(Status)>> granted;
  for (auto waiter = file.waiters.begin(); waiter != file.waiters.end();) {
    if (!can_have(file, waiter->asked)) {
      ++waiter;
      continue;
    }
    file.owners[waiter->asked.owner] = waiter->asked.what == What::kExclusive;
    granted.push_back(std::move(waiter->done));
    waiter = file.waiters.erase(waiter);
  }
  if (file.owners.empty() && file.waiters.empty()) files_.erase(found);
  for (auto& done : granted) done({});
}

}  // namespace krg
