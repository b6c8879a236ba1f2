// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_target.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "huge_pages.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

// Fewer are put in sooner than a worker would begin.
constexpr uint64_t kLeastPagesAside = 64;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

PageTarget::PageTarget(NodeContext& node, PageMoves::Arrival arrival, bool aside,
                       std::function<void()> ended)
    : node_(node),
      source_(arrival.source),
      move_(arrival.move),
      supply_(std::move(arrival.supply)),
      pid_(arrival.pid),
      pages_(std::move(arrival.ranges)),
      aside_(aside),
      first_later_(arrival.userfaultfd ? pages_.first_later() : pages_.count()),
      may_run_(std::move(arrival.may_run)),
      all_here_(std::move(arrival.all_here)),
      ended_(std::move(ended)),
      userfaultfd_(std::move(arrival.userfaultfd)),
      waits_for_begin_(arrival.waits_for_begin),
      early_(first_later_, true),
      demanded_(pages_.count(), false),
      spaces_(node.loop, node.page_sets ? node.page_sets : make_userfaultfd_group(),
              {.faults = [this](std::vector<uint64_t> pages) { demand(pages); },
               .changed = [this] { advance(); }}) {}

// --- coming and going ---------------------------------------------------------------------------

void PageTarget::start() {
  if (Status prepared = prepare(std::move(userfaultfd_)); !prepared) return end(prepared);
  if (!waits_for_begin_ || early_.any()) begin();
  if (state_ != State::kEnded) advance();
}

void PageTarget::begin() {
  if (std::exchange(has_begun_, true) || state_ == State::kEnded) return;
  if (supply_) return begin_supply();
  if (Status asked = ask(); !asked) on_lost(asked.error().errno_or(EHOSTDOWN));
}

Status PageTarget::ask() {
  if (Status made = make_slots(); !made) return made;
  PagesWanted wanted{.slots = slot_count(),
                     .move = move_,
                     .pages = pages_.count(),
                     .region = region_ ? region_->remote() : RemoteRegion{}};
  return node_.messenger.send(source_, wanted);
}

// What has to be there before the process runs is waited for.
void PageTarget::begin_supply() {
  const auto weak = weak_from_this();
  supply_->begin({.pages =
                      [weak](auto ranges, auto contents) {
                        auto self = weak.lock();
                        if (!self || self->state_ == State::kEnded) return;
                        Status taken = self->take_supplied(ranges, contents);
                        taken ? self->advance() : self->lose(taken.error());
                      },
                  .lost =
                      [weak](const Error& why) {
                        if (auto self = weak.lock()) self->lose(why);
                      }});
  for (uint64_t page = 0; page < first_later_; page += pages_.run_from(page)) {
    const uint64_t run = pages_.run_from(page);
    for (uint64_t i = 0; i < run; ++i) supply_->demand(pages_.address_of(page + i));
  }
}

Status PageTarget::take_supplied(std::span<const PageRange> ranges,
                                 std::span<const std::byte> contents) {
  for (const PageRange& range : ranges) {
    for (uint64_t done = 0; done < range.bytes;) {
      const auto page = pages_.page_at(range.start + done);
      if (!page) return errno_error("pages that nobody awaits", EPROTO);
      const uint64_t left = (range.bytes - done) / kMovedPageBytes;
      const auto count = static_cast<uint32_t>(std::min(pages_.run_from(*page), left));
      if (Status taken = put({*page, count, 1}, contents.data() + done); !taken) return taken;
      done += count * kMovedPageBytes;
    }
    contents = contents.subspan(range.bytes);
  }
  return {};
}

Status PageTarget::prepare(UniqueFd userfaultfd) {
  auto process = TaskMemory::open(pid_);
  if (!process) return process.error();
  process_ = std::move(*process);
  if (first_later_ < pages_.count()) {
    auto mappings = private_mappings(pid_);
    if (!mappings) return mappings.error();
    if (Status added = spaces_.add_first(std::move(userfaultfd), pages_, *mappings); !added)
      return added;
  }
  return watch_process();
}

Status PageTarget::watch_process() {
  auto exit = node_.loop.watch(process_->pidfd(), EPOLLIN, [weak = weak_from_this()](uint32_t) {
    if (auto self = weak.lock()) self->process_ended();
  });
  if (!exit) return exit.error();
  exit_ = std::move(*exit);
  return {};
}

Status PageTarget::make_slots() {
  const uint64_t bytes = pages_.count() * kMovedPageBytes;
  if (bytes <= kMostBytesInMessage) return {};
  const auto size = std::min<uint64_t>(bytes, uint64_t{kMaxPageSlots} * kPageSlotBytes);
  slot_memory_ = std::make_unique_for_overwrite<std::byte[]>(size);
  slots_ = {slot_memory_.get(), size};
  auto region = node_.messenger.transport().register_memory(slots_);
  if (!region) return region.error();
  region_ = std::move(*region);
  return {};
}

// Another process may still use the same address space (vfork), or have been forked.
void PageTarget::process_ended() {
  exit_.reset();
  if (state_ == State::kFilling)
    return end(errno_error("the process ended before its pages came", ESRCH));
  spaces_.find_ended();
  advance();
}

void PageTarget::on_lost(int error) {
  lose(errno_error("the rest of its memory is lost", error));
}

void PageTarget::lose(const Error& why) {
  if (state_ == State::kEnded) return;
  if (state_ == State::kRunning) {
    log_error("pages", "pid {} from n{}: {}: it is killed", pid_, source_.value, why.message());
    kill_process();
  }
  end(why);
}

// Whoever shares its memory or was forked by it gets SIGBUS where it touches what is lost.
void PageTarget::kill_process() {
  if (spaces_.first_awaits())
    syscall(SYS_pidfd_send_signal, process_->pidfd(), SIGKILL, nullptr, 0);  // it may have ended
  if (Status poisoned = spaces_.put(0, pages_.count(), PageSpace::Content::kPoison); !poisoned)
    log_error("pages", "pid {}: {}", pid_, poisoned.error().message());
}

void PageTarget::advance() {
  spaces_.sweep();
  tell_waiters();
  if (state_ == State::kFilling && !early_.any()) {
    state_ = State::kRunning;
    node_.loop.post([may_run = std::move(may_run_)] { may_run({}); });
  }
  if (state_ != State::kRunning || spaces_.awaits_any()) return;
  if (first_later_ < pages_.count()) keep_huge(node_, process_->pidfd(), pages_.ranges());
  end({});
}

// S may have transfers to the region under way until it answers.
void PageTarget::end(Status outcome) {
  const State was = std::exchange(state_, State::kEnded);
  exit_.reset();
  tell_waiters();
  if (!supply_) tell_source(outcome);
  node_.loop.post([ended = std::move(ended_),
                   tell = std::move(was == State::kFilling ? may_run_ : all_here_), outcome] {
    tell(outcome);
    ended();
  });
}

void PageTarget::tell_source(const Status& outcome) {
  PagesEnd message{.error = outcome ? 0 : outcome.error().errno_or(EIO), .move = move_};
  node_.messenger.request(source_, message, {},
                          [self = shared_from_this()](Result<std::string>) {});
}

bool PageTarget::awaits(pid_t pid, RemoteAddr address, uint64_t bytes) {
  if (state_ != State::kRunning) return false;
  if (!spaces_.awaited(pid == pid_, address, bytes).empty()) return true;
  spaces_.fill_gaps(pid == pid_, address, bytes);
  return false;
}

void PageTarget::when_here(pid_t pid, RemoteAddr address, uint64_t bytes,
                           std::function<void()> done) {
  waiters_.push_back({pid, address, bytes, std::move(done)});
  demand(spaces_.awaited(pid == pid_, address, bytes));
  node_.loop.post([self = shared_from_this()] { self->tell_waiters(); });
}

void PageTarget::tell_waiters() {
  std::vector<Waiter> still;
  for (Waiter& waiter : std::exchange(waiters_, {})) {
    if (awaits(waiter.pid, waiter.address, waiter.bytes)) {
      still.push_back(std::move(waiter));
    } else {
      node_.loop.post(std::move(waiter.done));
    }
  }
  waiters_ = std::move(still);
}

// --- pages --------------------------------------------------------------------------------------

void PageTarget::demand(const std::vector<uint64_t>& faults) {
  if (state_ == State::kEnded) return;
  for (uint64_t page : faults) {
    if (demanded_.test(page)) continue;
    demanded_.set(page);
    if (supply_)
      supply_->demand(pages_.address_of(page));
    else if (!node_.messenger.send(source_, PageDemand{.move = move_, .page = page}))
      return;
  }
}

void PageTarget::on_chunk(const PageChunk& chunk, std::string_view payload) {
  if (state_ == State::kEnded) return;
  std::span<const std::byte> slot;
  if (chunk.slot != kNoPageSlot) {
    if (chunk.slot >= slot_count()) return on_lost(EPROTO);
    slot = page_slot(slots_, chunk.slot);
  }
  auto runs = runs_of(payload, chunk.runs, slot);
  if (!runs) return on_put(runs.error(), chunk.slot);
  if (chunk.slot != kNoPageSlot && may_put_aside(*runs)) return put_aside(*runs, chunk.slot);
  Status done;
  for (const Run& run : *runs)
    if (done) done = put(run.pages, run.bytes);
  on_put(done, chunk.slot);
}

void PageTarget::on_put(const Status& put, uint32_t slot) {
  if (state_ == State::kEnded) return;
  if (!put) {
    log_error("pages", "pid {}: {}", pid_, put.error().message());
    return on_lost(put.error().errno_or(EIO));
  }
  if (slot != kNoPageSlot) {
    PageSlotFree free{.slot = slot, .move = move_};
    if (Status sent = node_.messenger.send(source_, free); !sent)
      return on_lost(sent.error().errno_or(EHOSTDOWN));
  }
  advance();
}

// The payload: runs, and their bytes unless those are in a slot.
Result<std::vector<PageTarget::Run>> PageTarget::runs_of(std::string_view payload, uint32_t count,
                                                         std::span<const std::byte> slot) const {
  const uint64_t run_bytes = uint64_t{count} * sizeof(PageRun);
  if (run_bytes > payload.size()) return errno_error("a message of page runs", EPROTO);
  auto bytes = slot.empty() ? bytes_of(payload.substr(run_bytes)) : slot;
  std::vector<Run> runs;
  for (uint32_t i = 0; i < count; ++i) {
    PageRun run;
    std::memcpy(&run, payload.data() + i * sizeof run, sizeof run);
    const uint64_t run_length = run.has_bytes ? run.count * kMovedPageBytes : 0;
    if (run.first > pages_.count() || run.count > pages_.count() - run.first ||
        run_length > bytes.size())
      return errno_error("a run of pages", EPROTO);
    runs.push_back({run, run.has_bytes ? bytes.data() : nullptr});
    bytes = bytes.subspan(run_length);
  }
  return runs;
}

bool PageTarget::may_put_aside(const std::vector<Run>& runs) const {
  uint64_t pages = 0;
  for (const Run& run : runs) pages += run.pages.count;
  const bool all_later =
      std::ranges::all_of(runs, [this](const Run& run) { return run.pages.first >= first_later_; });
  return aside_ && all_later && pages >= kLeastPagesAside;
}

void PageTarget::put_aside(const std::vector<Run>& runs, uint32_t slot) {
  std::vector<PageSpaces::Run> pages;
  for (const Run& run : runs) pages.push_back({run.pages.first, run.pages.count, run.bytes});
  spaces_.put_aside(
      node_.workers, std::move(pages),
      [self = shared_from_this(), slot](const Status& put) { self->on_put(put, slot); });
}

Status PageTarget::put(const PageRun& run, const std::byte* bytes) {
  const uint64_t end = run.first + run.count;
  const uint64_t middle = std::clamp(first_later_, run.first, end);
  if (Status written = write_early(run.first, middle - run.first, bytes); !written) return written;
  if (middle == end) return {};
  const auto content = bytes ? PageSpace::Content::kBytes : PageSpace::Content::kZeros;
  return spaces_.put(middle, end - middle, content,
                     bytes ? bytes + (middle - run.first) * kMovedPageBytes : nullptr);
}

// Anonymous memory that nobody has touched is zeros; a file's page is not.
Status PageTarget::write_early(uint64_t first, uint64_t count, const std::byte* bytes) {
  for (uint64_t page = first; page < first + count;) {
    // Where the process's userfaultfd serves memory pages are put in, each by itself.
    const uint64_t most = spaces_.serves_first() ? 1 : pages_.run_from(page);
    const uint64_t run = std::min(most, first + count - page);
    const MemoryPiece piece{pages_.address_of(page), run * kMovedPageBytes};
    const std::byte* from = bytes ? bytes + (page - first) * kMovedPageBytes : nullptr;
    const std::vector<std::byte> zeros(from || page >= pages_.first_later() ? 0 : piece.bytes);
    if (from || !zeros.empty()) {
      const auto what = from ? std::span(from, piece.bytes) : std::span<const std::byte>(zeros);
      if (!spaces_.serves_first() || !spaces_.put_early(piece.at, what.data()))
        if (Status written = process_->write({&piece, 1}, what); !written) return written;
    }
    for (uint64_t i = 0; i < run; ++i) early_.clear(page + i);
    page += run;
  }
  return {};
}

}  // namespace krg
