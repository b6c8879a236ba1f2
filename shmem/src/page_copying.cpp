// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_copying.h"

#include <algorithm>
#include <utility>

namespace krg {

constexpr size_t kUsedTogether = 128;  // in one turn of the loop: tens of microseconds

Result<std::vector<PageIndex>> owned_pages(const Kddm& kddm, SetId set, size_t pages) {
  std::vector<PageIndex> owned;
  auto done = kddm.for_each_owned(set, [&](ObjectId object) {
    if (object.value < pages) owned.push_back(PageIndex{object.value});
  });
  std::sort(owned.begin(), owned.end());
  return done ? Result<std::vector<PageIndex>>(std::move(owned)) : done.error();
}

void PageCopying::begin(std::vector<PageIndex> pages, Use use, std::function<void(Status)> done) {
  if (auto before = std::exchange(done_, std::move(done)))
    before(errno_error("copying of pages", ECANCELED));
  use_ = std::move(use);
  pages_ = std::move(pages);
  next_ = 0;
  left_.clear();
  for (PageIndex page : pages_) {
    if (left_.size() <= page.value) left_.resize(page.value + 1);
    left_[page.value] = true;
  }
  go_on_later();
}

void PageCopying::before_change(PageIndex first, size_t count) {
  const uint64_t end = std::min<uint64_t>(first.value + count, left_.size());
  for (uint64_t page = first.value; page < end; ++page)
    if (left_[page]) use(PageIndex{page});
}

void PageCopying::use(PageIndex page) {
  left_[page.value] = false;
  use_(page, frames_.page(page));
}

void PageCopying::go_on_later() {
  loop_.post([this, open = open_] {
    if (*open) go_on();
  });
}

void PageCopying::go_on() {
  if (!done_) return;
  const size_t end = std::min(next_ + kUsedTogether, pages_.size());
  for (; next_ < end; ++next_)
    if (left_[pages_[next_].value]) use(pages_[next_]);
  if (next_ < pages_.size()) return go_on_later();
  left_.clear();
  pages_.clear();
  use_ = nullptr;
  std::exchange(done_, nullptr)({});
}

}  // namespace krg
