// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_source.h"

#include <sys/epoll.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "in_worker.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

// What comes along with a page that somebody waits for, once faults go forward: ever more.
constexpr uint64_t kFirstReadAhead = 8, kMostReadAhead = 64;  // pages
// So far apart the touches of a run may be.
constexpr uint64_t kLongestStep = 16;
// So long after the last fault, and before the first one, the background rests.
constexpr std::chrono::milliseconds kRest{1};
// Who touches a page waits for what is under way: at first, and after each fault, that is little.
constexpr size_t kFirstBatchBytes = 64u << 10;
constexpr size_t kMaxRuns = 1024;  // a batch
// Fewer bytes are read sooner than a worker would begin.
constexpr size_t kLeastAside = 256u << 10;

void append(std::vector<PageRun>& runs, uint64_t page, bool has_bytes) {
  if (!runs.empty() && runs.back().first + runs.back().count == page &&
      runs.back().has_bytes == has_bytes) {
    ++runs.back().count;
  } else {
    runs.push_back({.first = page, .count = 1, .has_bytes = has_bytes});
  }
}

}  // namespace

Result<std::shared_ptr<PageSource>> PageSource::create(NodeContext& node, uint64_t move,
                                                       NodeId target, pid_t task,
                                                       std::vector<PageRange> ranges, bool aside,
                                                       Handlers handlers) {
  auto memory = TaskMemory::open(task);
  if (!memory) return memory.error();
  std::shared_ptr<PageSource> source(new PageSource(node, move, target, std::move(*memory),
                                                    std::move(ranges), aside, std::move(handlers)));
  auto exit =
      node.loop.watch(source->memory_.pidfd(), EPOLLIN, [weak = std::weak_ptr(source)](uint32_t) {
        auto self = weak.lock();
        if (!self) return;
        self->exit_.reset();
        // What has been read is no longer needed there.
        if (self->unsent_.any()) self->lose(ESRCH);
      });
  if (!exit) return exit.error();
  source->exit_ = std::move(*exit);
  return source;
}

PageSource::PageSource(NodeContext& node, uint64_t move, NodeId target, TaskMemory memory,
                       std::vector<PageRange> ranges, bool aside, Handlers handlers)
    : node_(node),
      move_(move),
      target_(target),
      memory_(std::move(memory)),
      pages_(std::move(ranges)),
      aside_(aside),
      handlers_(std::move(handlers)),
      unsent_(pages_.count(), true) {}

// --- what T says --------------------------------------------------------------------------------

void PageSource::on_wanted(const PagesWanted& wanted) {
  if (has_ended_) return;
  if (wanted.pages != pages_.count() || wanted.slots > kMaxPageSlots ||
      slots_in(wanted.region.length) != wanted.slots || slots_ > 0)
    return lose(EPROTO);
  if (wanted.slots == 0) {
    send_inline(0, pages_.count());
    return;
  }
  region_ = wanted.region;
  slots_ = wanted.slots;
  buffer_ = std::make_unique_for_overwrite<std::byte[]>(region_.length);
  for (uint32_t slot = slots_; slot > 0; --slot) free_slots_.push_back(slot - 1);
  unsent_.next(0) < pages_.first_later() ? push() : rest();
}

void PageSource::on_demand(uint64_t page) {
  if (page >= pages_.count() || has_ended_) return;
  rest();
  if (unsent_.test(page)) {  // else it is under way already
    const bool is_run = page >= answered_up_to_ && page - answered_up_to_ < kLongestStep;
    read_ahead_ = is_run ? std::clamp(2 * read_ahead_, kFirstReadAhead, kMostReadAhead) : 0;
    answered_up_to_ = page + 1 + read_ahead_;
    if (send_inline(page, 1)) send_inline(page + 1, read_ahead_);
  }
  // The background goes on from there: what is used together lies together.
  if (next_ >= pages_.first_later()) next_ = page;
}

void PageSource::rest() {
  batch_bytes_ = kFirstBatchBytes;
  rest_ = node_.loop.after(kRest, [this] {
    rest_.reset();
    push();
  });
}

void PageSource::on_slot_free(uint32_t slot) {
  if (slot >= slots_ || has_ended_) return;
  free_slots_.push_back(slot);
  push();
}

void PageSource::on_end(const PagesEnd& end_of_move, Messenger::Reply reply) {
  end_reply_ = std::move(reply);
  if (has_ended_) return drain();
  end(end_of_move.error == 0
          ? Status()
          : Status(errno_error("the process ended before its pages came", end_of_move.error)));
}

void PageSource::put_failed(const Error& error) {
  const int number = error.errno_or(EIO);
  number == EHOSTDOWN ? target_failed() : lose(number);
}

void PageSource::target_failed() {
  if (!has_ended_) end(errno_error("the node where the process ran failed", EHOSTDOWN));
}

void PageSource::abandon() {
  handlers_.ended = {};
  lose(ECANCELED);
}

// T is told that nothing more comes.
void PageSource::lose(int error) {
  if (has_ended_) return;
  PagesLost lost{.error = error, .move = move_};
  // An error: its node has failed, of which the messenger tells.
  if (Status sent = node_.messenger.send(target_, lost); !sent)
    log_debug("pages", "{}", sent.error().message());
  if (error != ECANCELED)
    log_error("pages", "move {}: {} pages are lost: {}", move_, unsent_.set_count(),
              errno_error("", error).message());
  end(errno_error("the task whose pages these were has ended", error));
}

void PageSource::end(Status outcome) {
  has_ended_ = true;
  exit_.reset();
  rest_.reset();
  free_slots_.clear();
  if (handlers_.ended)
    node_.loop.post([ended = std::move(handlers_.ended), outcome] { ended(outcome); });
  drain();
}

void PageSource::drain() {
  if (!has_ended_ || filling_ > 0) return;
  if (end_reply_) end_reply_->ok();
  end_reply_.reset();
  if (handlers_.drained) node_.loop.post(std::exchange(handlers_.drained, {}));
}

// --- pages --------------------------------------------------------------------------------------

// One slot in a turn of the loop: who waits for a page comes between two.
void PageSource::push() {
  if (has_ended_ || !unsent_.any() || free_slots_.empty() || rest_) return;
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  fill_slot(slot);
  if (free_slots_.empty() || std::exchange(will_push_, true)) return;
  node_.loop.post([weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->will_push_ = false;
    self->push();
  });
}

// By a worker where that takes longer than to wake one: the loop sends what has been read
// meanwhile.
void PageSource::fill_slot(uint32_t slot) {
  auto buffer = page_slot(std::span(buffer_.get(), region_.length), slot);
  buffer = buffer.first(std::min(buffer.size(), batch_bytes_));
  batch_bytes_ = std::min<size_t>(2 * batch_bytes_, kPageSlotBytes);
  if (unsent_.next(next_) == pages_.count()) next_ = 0;
  Plan plan = take(next_, buffer.size());
  if (!plan.runs.empty()) next_ = plan.runs.back().first + plan.runs.back().count;
  ++filling_;
  if (!aside_ || plan.bytes < kLeastAside)
    return send_slot(slot, buffer, read(memory_, plan, buffer));
  in_worker(
      node_.workers,
      [memory = &memory_, plan = std::move(plan), buffer] { return read(*memory, plan, buffer); },
      [self = shared_from_this(), slot, buffer](Result<Batch> batch) {
        self->send_slot(slot, buffer, std::move(batch));
      });
}

void PageSource::send_slot(uint32_t slot, std::span<std::byte> buffer, Result<Batch> batch) {
  if (has_ended_ || !batch || batch->bytes == 0) {
    --filling_;
    if (has_ended_) return drain();
    return batch ? announce(slot, *batch, {}) : lose(batch.error().errno_or(EIO));
  }
  node_.messenger.transport().put(target_, region_, uint64_t{slot} * kPageSlotBytes,
                                  buffer.first(batch->bytes),
                                  [self = shared_from_this(), slot, batch = *batch](Status put) {
                                    --self->filling_;
                                    if (self->has_ended_) return self->drain();
                                    if (!put) return self->put_failed(put.error());
                                    self->announce(slot, batch, {});
                                    self->push();
                                  });
}

// False when the source has ended.
bool PageSource::send_inline(uint64_t first, uint64_t most_pages) {
  const uint64_t end_of_range = std::min(first + most_pages, pages_.count());
  if (unsent_.next(first) >= end_of_range) return true;
  std::vector<std::byte> bytes((end_of_range - first) * kMovedPageBytes);
  auto batch = read(memory_, take(first, bytes.size()), bytes);
  if (!batch) {
    lose(batch.error().errno_or(EIO));
    return false;
  }
  announce(kNoPageSlot, *batch, std::span(bytes).first(batch->bytes));
  return !has_ended_;
}

// Pages from the first unsent one at or behind `first` on, as many as there is room for. They count
// as sent.
PageSource::Plan PageSource::take(uint64_t first, size_t most_bytes) {
  Plan plan;
  uint64_t room = most_bytes / kMovedPageBytes;
  for (uint64_t page = unsent_.next(first); room > 0 && page < pages_.count();) {
    const uint64_t run = unsent_.run(page, std::min(room, pages_.run_from(page)));
    plan.pieces.push_back({pages_.address_of(page), run * kMovedPageBytes});
    plan.runs.push_back({.first = page, .count = static_cast<uint32_t>(run)});
    plan.bytes += run * kMovedPageBytes;
    for (uint64_t i = 0; i < run; ++i) unsent_.clear(page + i);
    room -= run;
    page = unsent_.next(page + run);
    if (plan.runs.size() == kMaxRuns) break;
  }
  return plan;
}

// Zeros take room until they have been seen to be zeros.
Result<PageSource::Batch> PageSource::read(const TaskMemory& memory, const Plan& plan,
                                           std::span<std::byte> into) {
  if (Status read = memory.read(plan.pieces, into.first(plan.bytes)); !read) return read.error();
  Batch batch;
  const std::byte* from = into.data();
  for (const PageRun& run : plan.runs) {
    for (uint64_t page = run.first; page < run.first + run.count; ++page) {
      const bool has_bytes = !is_zero_page(from);
      append(batch.runs, page, has_bytes);
      if (has_bytes) {
        std::byte* to = into.data() + batch.bytes;
        if (to != from) std::memmove(to, from, kMovedPageBytes);
        batch.bytes += kMovedPageBytes;
      }
      from += kMovedPageBytes;
    }
  }
  return batch;
}

// The runs, and the bytes where they are not in a slot, are the payload.
void PageSource::announce(uint32_t slot, const Batch& batch, std::span<const std::byte> bytes) {
  PageChunk chunk{.slot = slot, .move = move_, .runs = static_cast<uint32_t>(batch.runs.size())};
  std::string payload(reinterpret_cast<const char*>(batch.runs.data()),
                      batch.runs.size() * sizeof(PageRun));
  payload.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (Status sent = node_.messenger.send(target_, chunk, payload); !sent) target_failed();
}

}  // namespace krg
