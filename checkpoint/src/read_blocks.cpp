// SPDX-License-Identifier: GPL-2.0-or-later
#include "read_blocks.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "block_room.h"
#include "each_block.h"

namespace krg {
namespace {

constexpr unsigned kReaders = 4;  // so many blocks at once are asked of the disk
constexpr unsigned kAhead = 4;    // may have come before anybody has time for them

class BlockReading {
 public:
  BlockReading(const PartReader& part, const std::function<bool(uint64_t)>& is_wanted,
               const BlockSink& sink)
      : part_(part),
        is_wanted_(is_wanted),
        sink_(sink),
        readers_(threads_for(kReaders)),
        takers_(threads_for(threads_for_blocks())),
        room_(readers_ + takers_ + kAhead) {
    for (size_t slot = readers_ + takers_ + kAhead; slot > 0; --slot) free_.push_back(slot - 1);
  }

  Status run() {
    {
      std::vector<std::jthread> helpers;
      for (unsigned i = 0; i < readers_; ++i) helpers.emplace_back([this] { read(); });
      for (unsigned i = 1; i < takers_; ++i) helpers.emplace_back([this] { take(); });
      take();
    }
    return failure_ ? Status(*failure_) : Status();
  }

 private:
  struct Come {
    uint64_t index = 0;
    size_t slot = 0;
    std::span<const std::byte> stored;
  };
  using Lock = std::unique_lock<std::mutex>;

  unsigned threads_for(unsigned most) const {
    return static_cast<unsigned>(std::clamp<uint64_t>(part_.block_count(), 1, most));
  }

  // ---- who waits for the disk ----

  void read() {
    Lock lock(mutex_);
    for (;;) {
      has_room_.wait(lock, [this] { return !free_.empty() || has_ended(); });
      while (!has_ended() && !is_wanted_(next_)) ++next_;
      if (has_ended()) break;
      const uint64_t index = next_++;
      const size_t slot = free_.back();
      free_.pop_back();
      lock.unlock();
      auto stored = part_.fetch(index, room_.at(slot));
      lock.lock();
      if (!stored) {
        fail(stored.error());
        break;
      }
      come_.push_back({index, slot, *stored});
      has_come_.notify_one();
    }
    if (--readers_left_ == 0) has_come_.notify_all();
    has_room_.notify_all();
  }

  bool has_ended() const { return failure_ || next_ >= part_.block_count(); }

  // ---- who checks and hands on ----

  void take() {
    BlockBuffer unpacked;
    Lock lock(mutex_);
    for (;;) {
      has_come_.wait(lock, [this] { return !come_.empty() || readers_left_ == 0 || failure_; });
      if (come_.empty() || failure_) return;
      const Come one = come_.front();
      come_.pop_front();
      lock.unlock();
      const Status done = take_one(one, unpacked);
      lock.lock();
      if (!done) return fail(done.error());
      free_.push_back(one.slot);
      has_room_.notify_one();
    }
  }

  Status take_one(const Come& one, BlockBuffer& unpacked) const {
    auto contents = part_.unpack(one.index, one.stored, [&] { return unpacked.whole(); });
    return contents ? sink_(one.index, *contents) : contents.error();
  }

  // REQUIRES: `mutex_`.
  void fail(const Error& why) {
    if (!failure_) failure_ = why;
    has_room_.notify_all();
    has_come_.notify_all();
  }

  const PartReader& part_;
  const std::function<bool(uint64_t)>& is_wanted_;
  const BlockSink& sink_;
  const unsigned readers_, takers_;
  const BlockRoom room_;

  std::mutex mutex_;  // for all below
  std::condition_variable has_room_, has_come_;
  std::vector<size_t> free_;  // slots of `room_`
  std::deque<Come> come_;
  uint64_t next_ = 0;  // block
  unsigned readers_left_ = readers_;
  std::optional<Error> failure_;
};

}  // namespace

Status read_blocks(const PartReader& part, const std::function<bool(uint64_t index)>& is_wanted,
                   const BlockSink& sink) {
  return BlockReading(part, is_wanted, sink).run();
}

}  // namespace krg
