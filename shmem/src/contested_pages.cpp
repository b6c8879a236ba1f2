// SPDX-License-Identifier: GPL-2.0-or-later
#include "contested_pages.h"

#include <algorithm>

namespace krg {

constexpr uint64_t kPageBytesMask = 4095;
constexpr uint64_t kWordBytes = 4;

unsigned ContestedPages::on_fault(PageIndex page, uint64_t address, bool write) {
  if (pages_.size() > kMostPages) pages_.clear();
  Page& known = pages_[page.value];
  if (known.phase != phase_) known.touched.clear();
  known.phase = phase_;
  const Touch touch{static_cast<uint16_t>((address & kPageBytesMask) / kWordBytes), write};
  if (std::find(known.touched.begin(), known.touched.end(), touch) == known.touched.end()) {
    if (known.touched.size() >= kMostWords) known.touched.erase(known.touched.begin());
    known.touched.push_back(touch);
  }
  known.writes += write;
  return written_anew(page);
}

unsigned ContestedPages::written_anew(PageIndex page) const {
  const auto found = pages_.find(page.value);
  return found == pages_.end() || found->second.writes == 0 ? 0 : found->second.writes - 1;
}

std::vector<ContestedPages::Touch> ContestedPages::touched(PageIndex page) const {
  const auto found = pages_.find(page.value);
  if (found == pages_.end() || found->second.phase != phase_) return {};
  return found->second.touched;
}

bool ContestedPages::conflict(const std::vector<Touch>& one, const std::vector<Touch>& other) {
  return std::any_of(one.begin(), one.end(), [&](const Touch& a) {
    return std::any_of(other.begin(), other.end(), [&](const Touch& b) {
      return a.word == b.word && (a.write != 0 || b.write != 0);
    });
  });
}

bool ContestedPages::add_conflict(PageIndex page) {
  if (++pages_[page.value].conflicts < kMostConflicts) return is_refused(page);
  refuse(page);
  return true;
}

void ContestedPages::refuse(PageIndex page) {
  refused_.insert(page.value);
}

}  // namespace krg
