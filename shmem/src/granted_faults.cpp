// SPDX-License-Identifier: GPL-2.0-or-later
#include "granted_faults.h"

#include <utility>

#include "krg/shmem/memory_abi.h"

namespace krg {
namespace {

// Pages that are here are mapped this many at once around a fault that belongs to no run, as the
// kernel does it for files (fault_around_bytes).
constexpr uint64_t kAround = 16;

}  // namespace

void GrantedFaults::add(const ProgramFault& fault) {
  if (granted_.empty())
    parts_.loop.post([this, open = std::weak_ptr(parts_.holder)] {
      if (!open.expired()) show_soon();
    });
  granted_.push_back(fault);
}

void GrantedFaults::show_soon() {
  if (!next_.empty()) return;  // then
  next_ = std::exchange(granted_, {});
  parts_.writers.acquire([this, open = std::weak_ptr(parts_.holder)] {
    if (!open.expired()) show_all();
  });
}

void GrantedFaults::show_all() {
  woken_.begin(next_.size());
  for (const ProgramFault& fault : std::exchange(next_, {})) {
    if (fault.page.value >= parts_.pages) {
      parts_.spaces.wake(fault.at);  // SIGBUS from the kernel
    } else if (!parts_.show_or_ask(fault)) {
      continue;
    }
    const bool is_back = parts_.working_sets.shown(
        fault.thread, {fault.page, fault.exact, fault.write}, WorkingSets::Clock::now());
    parts_.holder->shown(fault.page, is_back);
  }
  woken_.begin(0);
  if (!granted_.empty()) show_soon();
}

void GrantedFaults::show(const ProgramFault& fault) {
  ProgramSpaces& spaces = parts_.spaces;
  if (woken_.has(fault)) return parts_.told(fault);
  // Another mapping may be there since: its pages have rights of their own.
  if (!spaces.shows(fault.at, fault.page)) return spaces.wake(fault.at);

  const PageAccess access = parts_.holder->access(fault.page);
  auto fits = [&](PageIndex page) {
    return page.value < parts_.pages && parts_.holder->access(page) == access &&
           !parts_.writers.has(page) && !parts_.writers.is_fresh(page);
  };
  const ReadAhead* read_ahead = spaces.read_ahead(fault.at.space);
  const int64_t stride = read_ahead ? read_ahead->stride_at(fault.page.value) : 0;
  const auto in_block = static_cast<unsigned>(fault.page.value % kAround);
  const unsigned before_most = stride == -1 ? parts_.most_around : in_block + 1;
  const unsigned after_most =
      stride == 1 ? parts_.most_around : static_cast<unsigned>(kAround) - in_block;
  const unsigned before = spaces.run_length(fault.at, -1, before_most, fault.was_mapped, fits);
  const unsigned after = spaces.run_length(fault.at, 1, after_most, fault.was_mapped, fits);
  if (before == 0 || after == 0) return spaces.wake(fault.at);  // the mapping has gone
  parts_.statistics.mapped_around += before + after - 2;

  const ProgramPage start{fault.at.space,
                          RemoteAddr{fault.at.address.value - (before - 1) * kPageBytes}};
  woken_.add(start, before + after - 1, fault.was_mapped || access == PageAccess::kWrite);
  fault.was_mapped ? spaces.allow_writing(start, before + after - 1)
                   : spaces.map(start, before + after - 1, access == PageAccess::kWrite);
  parts_.told(fault);
}

void GrantedFaults::released(PageIndex first, size_t count) {
  for (auto* faults : {&granted_, &next_})
    for (ProgramFault& fault : *faults)
      fault.was_mapped &= fault.page < first || fault.page.value - first.value >= count;
}

}  // namespace krg
