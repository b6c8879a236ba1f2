// SPDX-License-Identifier: GPL-2.0-or-later
#include "phase_memory.h"

#include <algorithm>

namespace krg {

std::vector<PhaseMemory::Touch> PhaseMemory::begin(
    uint32_t thread, uint64_t phase, const std::function<bool(PageIndex, bool write)>& is_lacking) {
  if (count_ > kMostPages) {
    phases_.clear();
    count_ = 0;
  }
  current_[thread] = phase;
  std::vector<Touch> touches;
  Pages& pages = phases_[{thread, phase}];
  for (auto at = pages.begin(); at != pages.end();) {
    auto& [page, known] = *at;
    const bool write = known.write;
    const Next next = next_of(known, is_lacking({page}, write));
    if (next == Next::kForget) {
      at = pages.erase(at);
      --count_;
      continue;
    }
    if (next == Next::kFetch) touches.push_back({known.at, {page}, write});
    ++at;
  }
  return touches;
}

// A page that was left out, and written when a fault asked for it before, is taken for one that is
// read until a fault says so again.
PhaseMemory::Next PhaseMemory::next_of(Known& known, bool is_lacking) {
  const unsigned faults = std::exchange(known.faults, 0);
  if (std::exchange(known.is_looked_at, false)) {
    if (faults == 0) return Next::kForget;
    known.trust = static_cast<uint8_t>(std::min<unsigned>(2 * known.trust, kMostTrust));
  }
  if (faults >= kContested) known.rests = kRest;
  if (!is_lacking) return ++known.idle >= kIdle ? Next::kForget : Next::kLeave;
  known.idle = 0;
  if (known.rests > 0) {
    --known.rests;
    return Next::kLeave;
  }
  if (known.unseen >= known.trust) {
    known.unseen = 0;
    known.is_looked_at = true;
    known.write = false;
    return Next::kLeave;
  }
  ++known.unseen;
  return Next::kFetch;
}

PhaseMemory::Pages* PhaseMemory::pages_of(uint32_t thread) {
  auto phase = current_.find(thread);
  return phase == current_.end() ? nullptr : &phases_[{thread, phase->second}];
}

bool PhaseMemory::expects_write(uint32_t thread, PageIndex page) {
  Pages* pages = pages_of(thread);
  const auto found = pages ? pages->find(page.value) : Pages::iterator{};
  if (!pages || found == pages->end() || !found->second.write) return false;
  Known& known = found->second;
  if (known.unproved < known.write_trust) return ++known.unproved, true;
  if (std::exchange(known.is_only_read, true)) known.write_trust = 1;
  return false;
}

void PhaseMemory::on_fault(uint32_t thread, const Touch& touch) {
  Pages* pages = pages_of(thread);
  if (!pages) return;
  auto [entry, is_new] = pages->try_emplace(touch.page.value);
  count_ += is_new;
  Known& known = entry->second;
  known.at = touch.at;
  known.write |= touch.write;
  known.idle = 0;
  if (touch.write) {
    if (std::exchange(known.is_only_read, false))
      known.write_trust =
          static_cast<uint8_t>(std::min<unsigned>(2 * known.write_trust, kMostTrust));
    known.unproved = 0;
  }
  if (known.faults < UINT8_MAX) ++known.faults;
}

void PhaseMemory::on_fetched(uint32_t thread, const Touch& touch) {
  Pages* pages = pages_of(thread);
  if (!pages) return;
  auto [entry, is_new] = pages->try_emplace(touch.page.value);
  count_ += is_new;
  if (is_new) entry->second.at = touch.at;
}

}  // namespace krg
