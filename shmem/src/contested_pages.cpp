// SPDX-License-Identifier: GPL-2.0-or-later
#include "contested_pages.h"

#include <algorithm>

namespace krg {

constexpr uint64_t kInPage = 4095;

unsigned ContestedPages::on_fault(PageIndex page, uint64_t address, bool write) {
  if (pages_.size() > kMostPages) pages_.clear();
  Page& known = pages_[page.value];
  if (known.phase != phase_) known.touched.clear();
  known.phase = phase_;
  const Touch touch{static_cast<uint16_t>(address & kInPage), write};
  if (std::find(known.touched.begin(), known.touched.end(), touch) == known.touched.end()) {
    if (known.touched.size() >= kMostTouches) known.touched.erase(known.touched.begin());
    known.touched.push_back(touch);
  }
  if (write) ++known.writes;
  return known.writes > 0 ? known.writes - 1 : 0;
}

ContestedPages::Touches ContestedPages::touched(PageIndex page) const {
  const auto found = pages_.find(page.value);
  if (found == pages_.end() || found->second.phase != phase_) return {};
  return found->second.touched;
}

bool ContestedPages::conflict(const Touches& one, const Touches& other) {
  return std::any_of(one.begin(), one.end(), [&](const Touch& a) {
    return std::any_of(other.begin(), other.end(), [&](const Touch& b) {
      return a.byte == b.byte && (a.write != 0 || b.write != 0);
    });
  });
}

bool ContestedPages::has_write(const Touches& touches) {
  return std::any_of(touches.begin(), touches.end(), [](const Touch& t) { return t.write != 0; });
}

bool ContestedPages::judge(PageIndex page, bool conflict, bool is_beside) {
  Page& known = pages_[page.value];
  if (conflict && ++known.conflicts >= kMostConflicts) refuse(page);
  if (conflict || is_refused(page)) return false;
  return ++known.clean >= (is_beside ? 1 : kClean) + kCleanPerConflict * known.conflicts;
}

}  // namespace krg
