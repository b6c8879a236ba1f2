// SPDX-License-Identifier: GPL-2.0-or-later
#include "working_sets.h"

#include <algorithm>

namespace krg {

constexpr size_t kPagesKept = 16;

bool WorkingSets::shown(uint32_t thread, const Touch& touch, Clock::time_point now) {
  std::deque<Shown>& pages = threads_[thread];
  const auto before = std::find_if(pages.begin(), pages.end(),
                                   [&](const Shown& one) { return one.touch.page == touch.page; });
  bool is_back = false;
  if (before != pages.end()) {
    const bool same = before->touch.address == touch.address && before->touch.write == touch.write;
    is_back = !same && now - before->at < not_long_;
    pages.erase(before);
  } else if (pages.size() == kPagesKept) {
    pages.pop_front();
  }
  pages.push_back({touch, now});
  return is_back;
}

std::vector<PageIndex> WorkingSets::pages_of(uint32_t thread) const {
  std::vector<PageIndex> pages;
  const auto found = threads_.find(thread);
  if (found == threads_.end()) return pages;
  for (const Shown& shown : found->second) pages.push_back(shown.touch.page);
  return pages;
}

std::vector<PageIndex> WorkingSets::take(uint32_t thread) {
  std::vector<PageIndex> pages = pages_of(thread);
  threads_.erase(thread);
  return pages;
}

}  // namespace krg
