// PageCopying: pages of a set as they were at one moment, used one by one while programs go on:
// each before it changes, the others bit by bit.
//
// Threads: the loop's thread. Owned by PageHolder. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/kddm.h"
#include "page_frames.h"

namespace krg {

// As PageSet::owned(), of a set of `pages` pages.
Result<std::vector<PageIndex>> owned_pages(const Kddm& kddm, SetId set, size_t pages);

class PageCopying {
 public:
  // Both outlive it.
  PageCopying(EventLoop& loop, PageFrames& frames) : loop_(loop), frames_(frames) {}
  ~PageCopying() { *open_ = false; }
  PageCopying(const PageCopying&) = delete;
  PageCopying& operator=(const PageCopying&) = delete;

  using Use = std::function<void(PageIndex, std::span<const std::byte>)>;
  // `use` runs once for each of `pages`, which are here; `done` later, when it has for all. What
  // was under way is given up: its `done` gets ECANCELED.
  void begin(std::vector<PageIndex> pages, Use use, std::function<void(Status)> done);
  // To be called before pages are written, or go.
  void before_change(PageIndex first, size_t count);

 private:
  void use(PageIndex page);
  void go_on();
  void go_on_later();

  EventLoop& loop_;
  PageFrames& frames_;
  Use use_;
  std::function<void(Status)> done_;  // null: nothing is under way
  std::vector<PageIndex> pages_;
  size_t next_ = 0;         // of pages_
  std::vector<bool> left_;  // by page, perhaps shorter
  std::shared_ptr<bool> open_ = std::make_shared<bool>(true);
};

}  // namespace krg
