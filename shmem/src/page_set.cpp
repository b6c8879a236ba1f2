// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/page_set.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "granted_faults.h"
#include "krg/runtime/check.h"
#include "krg/runtime/log.h"
#include "krg/shmem/memory_abi.h"
#include "multiple_writers.h"
#include "page_file.h"
#include "page_frames.h"
#include "page_holder.h"
#include "phase_fetcher.h"
#include "program_spaces.h"
#include "working_sets.h"

namespace krg {
namespace {

// Requests ahead leave in so many messages that the first pages are on their way, and being mapped,
// while the next ones are looked up.
constexpr unsigned kAskedTogether = 256;
// So many neighbours have the same manager.
constexpr uint64_t kPagesPerManager = 256;
// Pages are fetched ahead for writing with more restraint: each one is taken away from all others.
constexpr unsigned kWriteAheadDivisor = 4;
// Where they are not to be (PageSetOptions::writes_ahead), of dense runs so many all the same: what
// is taken from others at the end of one's part is little then.
constexpr unsigned kDenseWriteAhead = 32;
// A node may exceed its memory limit by so much before new pages wait for others to leave; how
// often it is looked whether they may go on, and after what time they do anyway.
constexpr size_t kSlackDivisor = 16, kSlackBytes = 1u << 20;
constexpr std::chrono::microseconds kDelayStep{200};
constexpr std::chrono::milliseconds kLongestDelay{200};

size_t pages_of(uint64_t offset, size_t bytes) {
  return (offset % kPageBytes + bytes + kPageBytes - 1) / kPageBytes;
}

}  // namespace

struct PageSet::Impl {
  Impl(EventLoop& loop, Kddm& kddm, SetId set, PageFrames memory, const PageSetOptions& options);

  void serve_faults();
  bool is_short_of_memory() const;
  bool delay(const ProgramFault& fault);
  void serve_delayed();
  void serve(ProgramFault fault);
  void tell_served(const ProgramFault& fault) const;
  void fetch_ahead(const ProgramFault& fault, const ReadAhead::Plan& plan, PageAccess access);
  void make_room(PageIndex page);
  void ask_ahead(std::vector<PageIndex>& asked, PageAccess access);
  void answered(PageIndex page, const Status& outcome);
  std::vector<ProgramFault> take_waiting(PageIndex page);
  bool show_or_ask(const ProgramFault& fault, PageAccess ask_for = PageAccess::kRead);
  void released(PageIndex first, size_t count);
  void removing(PageIndex first, size_t count);
  void tell_unmapped(Pages pages);
  Status resize(size_t new_pages);
  template <class... Outcome>
  std::function<void(Outcome...)> noted(PageIndex first, size_t count,
                                        std::function<void(Outcome...)> done);

  EventLoop& loop;
  Kddm& kddm;
  const std::function<void()> close_set;  // what a callback keeps may end after the Kddm
  const SetId set;
  size_t pages;
  const unsigned max_read_ahead;
  const bool writes_ahead;
  const bool one_user;
  PageFrames frames;
  PageSetStatistics statistics;
  std::shared_ptr<PageHolder> holder;
  std::unordered_map<uint64_t, std::vector<ProgramFault>> waiting;  // faults, by page
  // Faults that wait for memory, and since when.
  std::deque<std::pair<std::chrono::steady_clock::time_point, ProgramFault>> delayed;
  EventLoop::Timer delay_timer;
  WorkingSets working_sets;
  std::function<void()> idle;
  std::function<void(Pages)> unmapped;
  std::function<void(const PageFault&)> served;
  ProgramSpaces spaces;
  MultipleWriters writers;
  GrantedFaults granted;
  PhaseFetcher phases;
  PageFile file;
};

PageSet::Impl::Impl(EventLoop& l, Kddm& k, SetId s, PageFrames memory,
                    const PageSetOptions& options)
    : loop(l),
      kddm(k),
      close_set(k.closer(s)),
      set(s),
      pages(memory.pages()),
      max_read_ahead(options.max_read_ahead),
      writes_ahead(options.writes_ahead),
      one_user(options.one_user),
      frames(std::move(memory)),
      holder(std::make_shared<PageHolder>(
          loop, k, s, frames,
          PageHolder::Times{options.hold_time, std::max(options.hold_time, options.long_hold_time)},
          PageHolder::Handlers{
              .answered = [this](PageIndex page, Status outcome) { answered(page, outcome); },
              .protect =
                  [this](PageIndex first, size_t count) {
                    spaces.protect(first, count);
                    writers.on_page_leaves();
                  },
              .released = [this](PageIndex first, size_t count) { released(first, count); },
              .readable =
                  [this](PageIndex first, size_t count) {
                    for (size_t i = 0; i < count; ++i) writers.on_page_came({first.value + i});
                    phases.came(first, count);
                  }})),
      working_sets(4 * options.long_hold_time),
      spaces(loop, frames, options.group ? options.group : make_userfaultfd_group(),
             options.poison_lost_pages,
             {.faults = [this] { serve_faults(); },
              .removing = [this](PageIndex first, size_t count) { removing(first, count); },
              .unmapped =
                  [this](PageIndex first, size_t count) {
                    tell_unmapped({first, count});
                  },
              .idle =
                  [this] {
                    if (idle) idle();
                  }}),
      writers({loop, frames, holder, spaces, [this](const ProgramFault& fault) { serve(fault); },
               [this](PageIndex page) { return take_waiting(page); },
               [this](const ProgramFault& fault) { tell_served(fault); },
               [this](PageIndex page) { return holder->make_room(ObjectId{page.value}, 1); }}),
      granted({loop, holder, spaces, writers, working_sets, statistics, pages, max_read_ahead + 1,
               [this](const ProgramFault& fault) { return show_or_ask(fault); },
               [this](const ProgramFault& fault) { tell_served(fault); }}),
      phases({loop, k, s, holder, spaces, writers}),
      file(k, s) {}

// --- faults -------------------------------------------------------------------------------------

void PageSet::Impl::serve_faults() {
  for (const ProgramFault& fault : spaces.take_faults())
    if (!delay(fault)) serve(fault);
}

bool PageSet::Impl::is_short_of_memory() const {
  const size_t limit = kddm.memory_limit();
  return limit > 0 && kddm.memory_used() > limit + limit / kSlackDivisor + kSlackBytes;
}

// Whoever fills memory faster than it can be given to other nodes waits here.
bool PageSet::Impl::delay(const ProgramFault& fault) {
  if (!is_short_of_memory() || fault.page.value >= pages ||
      holder->access(fault.page) != PageAccess::kNone)
    return false;
  ++statistics.delayed;
  delayed.emplace_back(std::chrono::steady_clock::now(), fault);
  if (!delay_timer) delay_timer = loop.every(kDelayStep, [this] { serve_delayed(); });
  return true;
}

void PageSet::Impl::serve_delayed() {
  const Kddm::Together together(kddm);
  const auto oldest = std::chrono::steady_clock::now() - kLongestDelay;
  while (!delayed.empty() && (delayed.front().first < oldest || !is_short_of_memory())) {
    const ProgramFault fault = delayed.front().second;
    delayed.pop_front();
    serve(fault);
  }
  if (delayed.empty()) delay_timer.reset();
}

void PageSet::Impl::serve(ProgramFault fault) {
  if (fault.page.value >= pages) return spaces.make_lost(fault.at);
  ++(fault.write ? statistics.write_faults : statistics.read_faults);
  statistics.upgrades += fault.was_mapped;
  const PageAccess access = fault.write || one_user ? PageAccess::kWrite : PageAccess::kRead;
  if (served) {
    fault.since = std::chrono::steady_clock::now();
    fault.was_here = holder->access(fault.page) >= access;
  }
  if (writers.is_on()) {
    if (writers.serves(fault)) return;
    writers.on_fault(fault);
  }

  ReadAhead* read_ahead = spaces.read_ahead(fault.at.space);
  if (!read_ahead) return;
  const unsigned write_most = writes_ahead ? max_read_ahead / kWriteAheadDivisor : kDenseWriteAhead;
  const unsigned most = fault.write && !one_user ? write_most : max_read_ahead;
  const ReadAhead::Plan plan =
      read_ahead->on_fault(fault.thread, fault.page.value, fault.write, most);
  statistics.fetched_ahead_hit += plan.passed;
  statistics.answered_here += holder->access(fault.page) >= access;

  // Who writes in this phase what it reads first need not ask twice.
  const bool will_write =
      plan.write || (!fault.write && phases.expects_write(fault.thread, fault.page));
  const PageAccess asked = will_write ? PageAccess::kWrite : access;
  phases.on_fault(fault.thread, {fault.at, fault.page, access == PageAccess::kWrite});
  show_or_ask(fault, asked);
  fetch_ahead(fault, plan, plan.write ? PageAccess::kWrite : access);
  make_room(fault.page);
}

// A frame is made for a page that is on its way, since there is nothing else to do meanwhile.
void PageSet::Impl::make_room(PageIndex page) {
  if (holder->access(page) == PageAccess::kNone && waiting.contains(page.value))
    frames.allocate(page, 1);
}

// Returns whether the page could be shown.
bool PageSet::Impl::show_or_ask(const ProgramFault& fault, PageAccess ask_for) {
  if (writers.is_on() && writers.serves(fault)) return true;
  const PageAccess access = fault.write ? PageAccess::kWrite : PageAccess::kRead;
  if (holder->access(fault.page) >= access) {
    if (writers.is_fresh(fault.page)) {  // what was written before it is not known here yet
      granted.add(fault);
      return false;
    }
    granted.show(fault);
    return true;
  }
  waiting[fault.page.value].push_back(fault);
  // Pages are kept while more are waited for in one order only: no two threads wait for each
  // other's.
  for (PageIndex page : working_sets.pages_of(fault.thread))
    if (page > fault.page) holder->let_go(page);
  holder->ask(fault.page, std::max(access, ask_for), PageHolder::Why::kFault);
  return false;
}

void PageSet::Impl::fetch_ahead(const ProgramFault& fault, const ReadAhead::Plan& plan,
                                PageAccess access) {
  if (is_short_of_memory()) return;
  if (access == PageAccess::kWrite && !writes_ahead && !plan.is_dense) return;
  std::vector<PageIndex> asked;
  for (unsigned i = 0; i < plan.count; ++i) {
    const int64_t number = plan.first + plan.stride * static_cast<int64_t>(i);
    if (number < 0 || number >= static_cast<int64_t>(pages)) break;
    const PageIndex page{static_cast<uint64_t>(number)};
    if (writers.has(page)) continue;
    phases.on_fetched(fault, page, access == PageAccess::kWrite);
    if (holder->access(page) < access && !holder->is_asked(page)) asked.push_back(page);
    if (asked.size() < kAskedTogether) continue;
    ask_ahead(asked, access);
    asked.clear();
  }
  ask_ahead(asked, access);
}

void PageSet::Impl::ask_ahead(std::vector<PageIndex>& asked, PageAccess access) {
  std::sort(asked.begin(), asked.end());  // neighbours in their order are runs
  statistics.fetched_ahead += asked.size();
  const Kddm::Together together(kddm);
  if (access == PageAccess::kWrite) {
    for (PageIndex page : asked) holder->ask(page, access, PageHolder::Why::kAhead);
    return;
  }
  for (size_t begin = 0; begin < asked.size();) {
    size_t end = begin + 1;
    while (end < asked.size() && asked[end].value == asked[begin].value + (end - begin)) ++end;
    kddm.prefetch(set, ObjectId{asked[begin].value}, end - begin);
    begin = end;
  }
}

// Pages that come together are mapped together, once all of them are here.
void PageSet::Impl::answered(PageIndex page, const Status& outcome) {
  if (outcome) writers.on_page_came(page);
  const auto faults = take_waiting(page);
  if (faults.empty()) {
    if (outcome) phases.came(page, 1);
    return holder->shown(page, false);
  }
  for (const ProgramFault& fault : faults) {
    if (outcome) {
      granted.add(fault);
    } else {
      log_warn("pages", "set {} page {}: {}: SIGBUS for thread {}", set.value, page.value,
               outcome.error().message(), fault.thread);
      spaces.make_lost(fault.at);
    }
  }
}

std::vector<ProgramFault> PageSet::Impl::take_waiting(PageIndex page) {
  auto found = waiting.extract(page.value);
  return found.empty() ? std::vector<ProgramFault>() : std::move(found.mapped());
}

void PageSet::Impl::tell_served(const ProgramFault& fault) const {
  if (!served || fault.since == std::chrono::steady_clock::time_point{}) return;
  served({.address = fault.exact,
          .page = fault.page,
          .thread = static_cast<pid_t>(fault.thread),
          .write = fault.write,
          .was_here = fault.was_here,
          .was_mapped = fault.was_mapped,
          .waited = std::chrono::steady_clock::now() - fault.since});
}

// --- what takes pages away ----------------------------------------------------------------------

void PageSet::Impl::released(PageIndex first, size_t count) {
  spaces.forget(first, count);
  // As of those that are granted.
  granted.released(first, count);
  if (waiting.empty()) return;
  for (uint64_t page = first.value; page < first.value + count; ++page) {
    auto found = waiting.find(page);
    if (found == waiting.end()) continue;
    for (ProgramFault& fault : found->second) fault.was_mapped = false;
  }
}

// A program may be about to punch pages out of the memfd: nobody shall have other copies of them.
void PageSet::Impl::removing(PageIndex first, size_t count) {
  const Kddm::Together together(kddm);
  for (uint64_t i = first.value; i < first.value + count && i < pages; ++i)
    if (holder->access({i}) == PageAccess::kRead)
      holder->ask({i}, PageAccess::kWrite, PageHolder::Why::kAhead);
}

// What this process itself does to pages counts as written before it has begun and when it has
// ended: whoever asks in between must not take it for done.
template <class... Outcome>
std::function<void(Outcome...)> PageSet::Impl::noted(PageIndex first, size_t count,
                                                     std::function<void(Outcome...)> done) {
  if (first.value > pages || count > pages - first.value) return done;  // refused
  holder->note_written(first, count);
  return
      [this, first, count, open = std::weak_ptr(holder), done = std::move(done)](Outcome... how) {
        if (!open.expired()) holder->note_written(first, count);
        done(std::move(how)...);
      };
}

// It may be told in the middle of anything.
void PageSet::Impl::tell_unmapped(Pages gone) {
  if (!unmapped) return;
  loop.post([this, gone, open = std::weak_ptr(holder)] {
    if (!open.expired()) unmapped(gone);
  });
}

Status PageSet::Impl::resize(size_t new_pages) {
  if (Status resized = holder->resize(new_pages); !resized) return resized;
  pages = new_pages;
  for (auto at = waiting.begin(); at != waiting.end();) {
    if (at->first < pages) {
      ++at;
      continue;
    }
    for (const ProgramFault& fault : at->second) spaces.wake(fault.at);  // SIGBUS from the kernel
    at = waiting.erase(at);
  }
  return {};
}

// --- the interface ------------------------------------------------------------------------------

Result<std::unique_ptr<PageSet>> PageSet::create(EventLoop& loop, Kddm& kddm, SetId set,
                                                 size_t pages, PageSetOptions options) {
  if (!(Userfaultfd::kernel_features() & kUffdWpUnpopulated))
    return errno_error("page sets need userfaultfd of Linux 6.4 or newer", ENOSYS);
  auto frames = PageFrames::create(pages);
  if (!frames) return frames.error();
  std::unique_ptr<PageSet> page_set(new PageSet);
  page_set->impl_ = std::make_unique<Impl>(loop, kddm, set, std::move(*frames), options);
  KddmSetOptions objects{.object_bytes = kPageBytes,
                         .linker = std::move(options.linker),
                         .memory = page_set->impl_->holder,
                         .objects_per_manager = kPagesPerManager,
                         .home = options.home};
  if (Status opened = kddm.open_set(set, std::move(objects)); !opened) {
    page_set->impl_.reset();
    return opened.error();
  }
  return page_set;
}

PageSet::PageSet() = default;
PageSet::~PageSet() {
  if (!impl_) return;
  impl_->holder->stop();
  impl_->close_set();
}

SetId PageSet::id() const {
  return impl_->set;
}
size_t PageSet::pages() const {
  return impl_->pages;
}
Status PageSet::resize(size_t pages) {
  return impl_->resize(pages);
}
int PageSet::memory() const {
  return impl_->frames.memfd();
}
int PageSet::userfaultfd_flags(bool user_mode_only) {
  return O_CLOEXEC | O_NONBLOCK | (user_mode_only ? UFFD_USER_MODE_ONLY : 0);
}
bool PageSet::follows_forks() {
  return Userfaultfd::may_follow_forks();
}

Status PageSet::attach(UniqueFd userfaultfd, pid_t pid, RemoteAddr address, PageIndex first,
                       size_t count) {
  if (count == 0 || first.value > impl_->pages || count > impl_->pages - first.value ||
      address.value % kPageBytes != 0)
    return errno_error(
        fmt::format("set {}: {} pages from {} on", impl_->set.value, count, first.value), EINVAL);
  return impl_->spaces.attach(std::move(userfaultfd), pid, address, first, count);
}
Status PageSet::attach_beside(pid_t pid, RemoteAddr address, PageIndex first, size_t count) {
  return impl_->spaces.extend(pid, address, first, count);
}
bool PageSet::is_attached(pid_t pid) {
  return impl_->spaces.is_attached(pid);
}
std::vector<PageSet::Pages> PageSet::mapped_in(RemoteAddr address, size_t bytes) const {
  return impl_->spaces.mapped_in(address, bytes);
}
void PageSet::on_unmapped(std::function<void(Pages)> unmapped) {
  impl_->unmapped = std::move(unmapped);
}
size_t PageSet::mapping_count() const {
  return impl_->spaces.mapping_count();
}
void PageSet::on_idle(std::function<void()> idle) {
  impl_->idle = std::move(idle);
}

void PageSet::waits(pid_t thread) {
  for (PageIndex page : impl_->working_sets.take(static_cast<uint32_t>(thread)))
    impl_->holder->was_used(page);
}
void PageSet::wakes(pid_t thread) {
  for (PageIndex page : impl_->working_sets.pages_of(static_cast<uint32_t>(thread)))
    impl_->holder->shorten(page);
}
void PageSet::begin_phase(pid_t thread, uint64_t phase) {
  impl_->writers.begin_phase(static_cast<uint32_t>(thread), phase);
  if (impl_->is_short_of_memory()) return;
  impl_->statistics.fetched_by_phase +=
      impl_->phases.begin(static_cast<uint32_t>(thread), phase, impl_->pages);
}

void PageSet::on_fault(std::function<void(const PageFault&)> served) {
  impl_->served = std::move(served);
}

void PageSet::allow_multiple_writers(MultipleWritersOptions options) {
  impl_->writers.allow(std::move(options));
}
void PageSet::publish(NodeId to) {
  impl_->writers.publish(to);
}
void PageSet::take_writers_message(NodeId from, std::string_view message) {
  impl_->writers.take_message(from, message);
}
bool PageSet::allows_multiple_writers() const {
  return impl_->writers.is_on();
}
MultipleWritersStatistics PageSet::multiple_writers() const {
  return impl_->writers.statistics();
}

// What this process uses has one writer: it waits for it as any node does.
void PageSet::read(uint64_t offset, size_t bytes, std::function<void(Result<std::string>)> done) {
  impl_->writers.reclaim({offset / kPageBytes}, pages_of(offset, bytes), true);
  impl_->file.read(impl_->pages, offset, bytes, std::move(done));
}
void PageSet::write(uint64_t offset, std::string_view bytes, std::function<void(Status)> done) {
  impl_->writers.reclaim({offset / kPageBytes}, pages_of(offset, bytes.size()), true);
  impl_->writers.on_page_leaves();
  const PageIndex first{offset / kPageBytes};
  auto written = impl_->noted(first, pages_of(offset, bytes.size()), std::move(done));
  impl_->file.write(impl_->pages, offset, bytes, std::move(written));
}
void PageSet::visit(PageIndex first, size_t count, Use use, std::function<void(Status)> done) {
  impl_->writers.reclaim(first, count, false);
  impl_->file.visit(impl_->loop, first, count, std::move(use), std::move(done));
}
void PageSet::update(uint64_t offset, std::function<uint32_t(uint32_t)> change,
                     std::function<void(Result<uint32_t>)> done) {
  impl_->writers.reclaim({offset / kPageBytes}, 1, true);
  impl_->writers.on_page_leaves();  // what is written tells others something
  auto updated = impl_->noted({offset / kPageBytes}, 1, std::move(done));
  impl_->file.update(impl_->pages, offset, std::move(change), std::move(updated));
}
void PageSet::discard(PageIndex first, size_t count, std::function<void()> done) {
  impl_->writers.reclaim(first, count, false);
  impl_->file.discard(first, count, impl_->noted(first, count, std::move(done)));
}
std::optional<std::vector<bool>> PageSet::take_written() {
  return impl_->holder->take_written();
}
Result<std::vector<PageIndex>> PageSet::owned() const {
  return owned_pages(impl_->kddm, impl_->set, impl_->pages);
}
void PageSet::use_before_change(std::vector<PageIndex> pages, Use use,
                                std::function<void(Status)> done) {
  impl_->holder->use_before_change(std::move(pages), std::move(use), std::move(done));
}
void PageSet::let_go(PageIndex page) {
  impl_->holder->let_go(page);
}
PageSetStatistics PageSet::statistics() const {
  PageSetStatistics statistics = impl_->statistics;
  statistics.pages_here = impl_->holder->pages_here();
  return statistics;
}
std::optional<PageSet::Location> PageSet::locate(pid_t pid, RemoteAddr address) const {
  return impl_->spaces.locate(pid, address);
}

}  // namespace krg
