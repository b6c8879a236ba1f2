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

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

PageTarget::PageTarget(NodeContext& node, PageMoves::Arrival arrival, std::function<void()> ended)
    : node_(node),
      source_(arrival.source),
      move_(arrival.move),
      pid_(arrival.pid),
      pages_(std::move(arrival.ranges)),
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
  if (Status made = make_slots(); !made) return on_lost(made.error().errno_or(ENOMEM));
  PagesWanted wanted{.slots = slot_count(),
                     .move = move_,
                     .pages = pages_.count(),
                     .region = region_ ? region_->remote() : RemoteRegion{}};
  if (Status sent = node_.messenger.send(source_, wanted); !sent)
    return on_lost(sent.error().errno_or(EHOSTDOWN));
}

Status PageTarget::prepare(UniqueFd userfaultfd) {
  auto process = TaskMemory::open(pid_);
  if (!process) return process.error();
  process_ = std::move(*process);
  if (first_later_ < pages_.count())
    if (Status added = spaces_.add_first(std::move(userfaultfd), pages_); !added) return added;
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
  slots_.resize(std::min<uint64_t>(bytes, uint64_t{kMaxPageSlots} * kPageSlotBytes));
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
  if (state_ == State::kEnded) return;
  const Status lost = errno_error("the rest of its memory is lost", error);
  if (state_ == State::kRunning) {
    log_error("pages", "pid {} from n{}: {}: it is killed", pid_, source_.value,
              lost.error().message());
    kill_process();
  }
  end(lost);
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
  PagesEnd message{.error = outcome ? 0 : outcome.error().errno_or(EIO), .move = move_};
  node_.messenger.request(source_, message, {},
                          [self = shared_from_this()](Result<std::string>) {});
  node_.loop.post([ended = std::move(ended_),
                   tell = std::move(was == State::kFilling ? may_run_ : all_here_), outcome] {
    tell(outcome);
    ended();
  });
}

bool PageTarget::awaits(pid_t pid, RemoteAddr address, uint64_t bytes) const {
  return state_ == State::kRunning && !spaces_.awaited(pid == pid_, address, bytes).empty();
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
    if (!node_.messenger.send(source_, PageDemand{.move = move_, .page = page})) return;
  }
}

void PageTarget::on_chunk(const PageChunk& chunk, std::string_view payload) {
  if (state_ == State::kEnded) return;
  std::span<const std::byte> slot;
  if (chunk.slot != kNoPageSlot) {
    if (chunk.slot >= slot_count()) return on_lost(EPROTO);
    slot = page_slot(std::span(slots_), chunk.slot);
  }
  if (Status taken = take(payload, chunk.runs, slot); !taken) {
    log_error("pages", "pid {}: {}", pid_, taken.error().message());
    return on_lost(taken.error().errno_or(EIO));
  }
  if (chunk.slot != kNoPageSlot) {
    PageSlotFree free{.slot = chunk.slot, .move = move_};
    if (Status sent = node_.messenger.send(source_, free); !sent)
      return on_lost(sent.error().errno_or(EHOSTDOWN));
  }
  advance();
}

// The payload: runs, and their bytes unless those are in a slot.
Status PageTarget::take(std::string_view payload, uint32_t count, std::span<const std::byte> slot) {
  const uint64_t run_bytes = uint64_t{count} * sizeof(PageRun);
  if (run_bytes > payload.size()) return errno_error("a message of page runs", EPROTO);
  auto bytes = slot.empty() ? bytes_of(payload.substr(run_bytes)) : slot;
  for (uint32_t i = 0; i < count; ++i) {
    PageRun run;
    std::memcpy(&run, payload.data() + i * sizeof run, sizeof run);
    const uint64_t run_length = run.has_bytes ? run.count * kMovedPageBytes : 0;
    if (run.first > pages_.count() || run.count > pages_.count() - run.first ||
        run_length > bytes.size())
      return errno_error("a run of pages", EPROTO);
    if (Status done = put(run, run.has_bytes ? bytes.data() : nullptr); !done) return done;
    bytes = bytes.subspan(run_length);
  }
  return {};
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

Status PageTarget::write_early(uint64_t first, uint64_t count, const std::byte* bytes) {
  for (uint64_t page = first; page < first + count;) {
    const uint64_t run = std::min(pages_.run_from(page), first + count - page);
    const MemoryPiece piece{pages_.address_of(page), run * kMovedPageBytes};
    const std::byte* from = bytes ? bytes + (page - first) * kMovedPageBytes : nullptr;
    // Anonymous memory that nobody has touched is zeros; a file's page is not.
    const std::vector<std::byte> zeros(from || page >= pages_.first_later() ? 0 : piece.bytes);
    if (from || !zeros.empty()) {
      const auto what = from ? std::span(from, piece.bytes) : std::span<const std::byte>(zeros);
      if (Status written = process_->write({&piece, 1}, what); !written) return written;
    }
    for (uint64_t i = 0; i < run; ++i) early_.clear(page + i);
    page += run;
  }
  return {};
}

}  // namespace krg
