// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_holder.h"

#include <algorithm>
#include <utility>

#include "krg/runtime/check.h"

namespace krg {

constexpr size_t kProtectedTogether = 64;
// Who asked for a page gets at least this long to use it: what waking a thread takes.
constexpr std::chrono::microseconds kLeastHold{25};

PageHolder::PageHolder(EventLoop& loop, Kddm& kddm, SetId set, PageFrames& frames, Times times,
                       Handlers handlers)
    : loop_(loop),
      kddm_(kddm),
      set_(set),
      frames_(frames),
      times_(times),
      handlers_(std::move(handlers)),
      access_(frames.pages(), PageAccess::kNone),
      copying_(loop, frames) {}

Status PageHolder::resize(size_t pages) {
  if (pages < access_.size()) note_written({pages}, access_.size() - pages);
  if (Status resized = frames_.resize(pages); !resized) return resized;
  for (size_t i = pages; i < access_.size(); ++i) set_access({i}, PageAccess::kNone);
  access_.resize(pages, PageAccess::kNone);
  return {};
}

void PageHolder::stop() {
  open_.reset();
  timer_.reset();
}

// --- asking -------------------------------------------------------------------------------------

void PageHolder::ask(PageIndex page, PageAccess access, Why why) {
  Asked& asked = asked_[page.value];
  asked.hold |= why == Why::kFault;
  if (asked.get || asked.grab) return;
  auto done = [this, page, access, open = std::weak_ptr(open_)](Result<std::span<std::byte>> got) {
    if (open.expired()) return;
    granted(page, access, got ? Status() : Status(got.error()));
  };
  const ObjectId object{page.value};
  if (access == PageAccess::kRead) {
    asked.get = true;
    return kddm_.get(set_, object, Kddm::Touch::kFirstTouch, std::move(done));
  }
  asked.grab = true;
  end_hold(page);  // a get of ours would keep our own grab waiting
  kddm_.grab(set_, object, Kddm::Touch::kFirstTouch, std::move(done));
}

void PageHolder::granted(PageIndex page, PageAccess access, Status outcome) {
  const Asked asked = asked_.extract(page.value).mapped();
  const bool in_set = page.value < access_.size();  // else it was cut off meanwhile
  if (outcome && in_set) set_access(page, std::max(access_[page.value], access));
  // A hold begins before the answer, which may ask for more and so end it.
  const bool held = outcome && asked.hold && held_.try_emplace(page.value).second;
  if (in_set) handlers_.answered(page, outcome);
  if (outcome && !held) kddm_.put(set_, ObjectId{page.value});
}

void PageHolder::keep(PageIndex page, std::function<void(Status)> done) {
  end_hold(page);
  kddm_.grab(set_, ObjectId{page.value}, Kddm::Touch::kFirstTouch,
             [this, page, done = std::move(done),
              open = std::weak_ptr(open_)](const Result<std::span<std::byte>>& got) {
               if (open.expired()) return;
               if (got) {
                 set_access(page, PageAccess::kWrite);
                 kept_.insert(page.value);
               }
               done(got ? Status() : Status(got.error()));
             });
}

void PageHolder::give_up(PageIndex page) {
  kept_.erase(page.value);
  kddm_.put(set_, ObjectId{page.value});
}

void PageHolder::set_access(PageIndex page, PageAccess access) {
  pages_here_ += (access != PageAccess::kNone) - (access_[page.value] != PageAccess::kNone);
  access_[page.value] = access;
  if (access == PageAccess::kWrite) note_written(page, 1);
}

// --- what was written ---------------------------------------------------------------------------

void PageHolder::note_written(PageIndex first, size_t count) {
  copying_.before_change(first, count);
  if (!written_) return;
  const size_t end = first.value + count;
  if (written_->size() < end) written_->resize(std::max(end, access_.size()));
  std::fill_n(written_->begin() + static_cast<ptrdiff_t>(first.value), count, true);
}

// Who writes a page after that asks for it again, which this node grants itself where it still owns
// the page.
std::optional<std::vector<bool>> PageHolder::take_written() {
  for (uint64_t first = 0; first < access_.size();) {
    uint64_t end = first;
    for (; end < access_.size() && access_[end] == PageAccess::kWrite; ++end)
      set_access({end}, PageAccess::kRead);
    if (end > first) handlers_.protect(PageIndex{first}, end - first);
    first = end + 1;
  }
  return std::exchange(written_, std::vector<bool>(access_.size()));
}

void PageHolder::use_before_change(std::vector<PageIndex> pages, PageCopying::Use use,
                                   std::function<void(Status)> done) {
  copying_.begin(std::move(pages), std::move(use), std::move(done));
}

// --- holding ------------------------------------------------------------------------------------

void PageHolder::shown(PageIndex page, bool for_long) {
  auto found = held_.find(page.value);
  if (found == held_.end() || found->second.until != Clock::time_point::max()) return;
  found->second.since = Clock::now();
  hold_until(page, found->second, found->second.since + (for_long ? times_.most : times_.usual));
}

void PageHolder::hold_until(PageIndex page, Held& held, Clock::time_point until) {
  held.until = until;
  const auto at = due_.emplace(until, page.value).first;
  if (at == due_.begin()) timer_.reset();
  arm();
}

void PageHolder::let_go(PageIndex page) {
  auto found = held_.find(page.value);
  if (found != held_.end())
    hold_no_longer(page, found->second, found->second.since + std::min(times_.usual, kLeastHold));
}

void PageHolder::shorten(PageIndex page) {
  auto found = held_.find(page.value);
  if (found != held_.end()) hold_no_longer(page, found->second, Clock::now() + times_.usual);
}

void PageHolder::hold_no_longer(PageIndex page, Held& held, Clock::time_point than) {
  if (held.until == Clock::time_point::max() || than >= held.until) return;
  if (than <= Clock::now()) return end_hold(page);
  hold_until(page, held, than);
}

void PageHolder::was_used(PageIndex page) {
  auto found = held_.find(page.value);
  if (found != held_.end() && found->second.until != Clock::time_point::max()) end_hold(page);
}

void PageHolder::end_hold(PageIndex page) {
  if (held_.erase(page.value) > 0) kddm_.put(set_, ObjectId{page.value});
}

void PageHolder::end_due_holds() {
  const Kddm::Together together(kddm_);
  const auto now = Clock::now();
  while (!due_.empty() && due_.begin()->first <= now) {
    const auto [until, page] = *due_.begin();
    due_.erase(due_.begin());
    auto found = held_.find(page);
    if (found != held_.end() && found->second.until == until) end_hold(PageIndex{page});
  }
  arm();
}

void PageHolder::arm() {
  if (due_.empty() || timer_) return;
  const auto wait =
      std::chrono::ceil<std::chrono::microseconds>(due_.begin()->first - Clock::now());
  timer_ = loop_.after(std::max(wait, std::chrono::microseconds(0)), [this] {
    timer_.reset();
    end_due_holds();
  });
}

// --- what the protocol says ---------------------------------------------------------------------

std::span<std::byte> PageHolder::place(ObjectId object) {
  const PageIndex page{object.value};
  if (std::find(releases_.begin(), releases_.end(), page) != releases_.end()) settle();
  if (page.value >= access_.size()) {
    const Status grown = resize(page.value + 1);
    check(grown.has_value(), "there is memory for a page that another node uses");
  }
  return frames_.page(page);
}

bool PageHolder::make_room(ObjectId first, size_t count) {
  if (first.value >= access_.size()) return true;  // install() sees to it
  const PageIndex page{first.value};
  count = std::min<size_t>(count, access_.size() - first.value);
  return frames_.are_allocated(page, count) || frames_.allocate(page, count);
}

void PageHolder::install(ObjectId first, size_t, std::span<const std::byte> bytes) {
  frames_.write(PageIndex{first.value}, bytes);
}

void PageHolder::readable(ObjectId first, size_t count) {
  for (uint64_t page = first.value; page < first.value + count && page < access_.size(); ++page)
    set_access({page}, std::max(access_[page], PageAccess::kRead));
  if (handlers_.readable) handlers_.readable(PageIndex{first.value}, count);
}

void PageHolder::protect(ObjectId object) {
  const PageIndex page{object.value};
  if (page.value >= access_.size() || access_[page.value] != PageAccess::kWrite) return;
  const size_t count = protect_run(page);
  for (size_t i = 0; i < count; ++i) set_access({page.value + i}, PageAccess::kRead);
  handlers_.protect(page, count);
}

// Where page after page is protected, because another node reads them in turn, the next ones are
// protected along with this one: a call each costs more than all at once. Who writes one of them
// all the same asks for it again, which this node grants itself. Not one that is kept: who keeps it
// lets programs write it without asking, so it would be writable still when others get copies.
size_t PageHolder::protect_run(PageIndex page) {
  protect_window_ = page == next_protected_ ? std::min(2 * protect_window_, kProtectedTogether) : 1;
  size_t count = 1;
  while (count < protect_window_) {
    const uint64_t next = page.value + count;
    if (next >= access_.size() || access_[next] != PageAccess::kWrite || held_.contains(next) ||
        kept_.contains(next))
      break;
    ++count;
  }
  next_protected_ = {page.value + count};
  return count;
}

void PageHolder::release(ObjectId object) {
  const PageIndex page{object.value};
  if (page.value >= access_.size()) return;
  copying_.before_change(page, 1);
  set_access(page, PageAccess::kNone);
  releases_.push_back(page);
}

// Neighbours are punched together.
void PageHolder::settle() {
  std::vector<PageIndex> pages = std::exchange(releases_, {});
  std::sort(pages.begin(), pages.end());
  for (size_t first = 0; first < pages.size();) {
    size_t end = first + 1;
    while (end < pages.size() && pages[end].value <= pages[end - 1].value + 1) ++end;
    const size_t count = pages[end - 1].value - pages[first].value + 1;
    frames_.punch(pages[first], count);
    handlers_.released(pages[first], count);
    first = end;
  }
}

}  // namespace krg
