// SPDX-License-Identifier: GPL-2.0-or-later
#include "pass_blocks.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "block_room.h"

namespace krg {
namespace {

constexpr unsigned kAhead = 4;  // may have been given before anybody has time for them

class BlockPassing {
 public:
  BlockPassing(uint64_t count, const std::function<bool(uint64_t)>& is_wanted,
               const BlockHands& hands)
      : count_(count),
        is_wanted_(is_wanted),
        hands_(hands),
        givers_(threads_for(hands.givers)),
        takers_(threads_for(hands.takers)),
        room_(givers_ + takers_ + kAhead) {
    for (size_t slot = givers_ + takers_ + kAhead; slot > 0; --slot) free_.push_back(slot - 1);
  }

  Status run() {
    {
      std::vector<std::jthread> helpers;
      for (unsigned i = 0; i < givers_; ++i) helpers.emplace_back([this] { give(); });
      for (unsigned i = 1; i < takers_; ++i) helpers.emplace_back([this] { take(); });
      take();
    }
    return failure_ ? Status(*failure_) : Status();
  }

 private:
  struct Given {
    uint64_t index = 0;
    size_t slot = 0;
    std::span<const std::byte> bytes;
  };
  using Lock = std::unique_lock<std::mutex>;

  unsigned threads_for(unsigned most) const {
    return static_cast<unsigned>(std::clamp<uint64_t>(count_, 1, most));
  }

  void give() {
    Lock lock(mutex_);
    for (;;) {
      has_room_.wait(lock, [this] { return !free_.empty() || has_ended(); });
      while (!has_ended() && !is_wanted_(next_)) ++next_;
      if (has_ended()) break;
      const uint64_t index = next_++;
      const size_t slot = free_.back();
      free_.pop_back();
      lock.unlock();
      auto bytes = hands_.give(index, room_.at(slot));
      lock.lock();
      if (!bytes) {
        fail(bytes.error());
        break;
      }
      given_.push_back({index, slot, *bytes});
      has_given_.notify_one();
    }
    if (--givers_left_ == 0) has_given_.notify_all();
    has_room_.notify_all();
  }

  bool has_ended() const { return failure_ || next_ >= count_; }

  void take() {
    BlockBuffer spare;
    Lock lock(mutex_);
    for (;;) {
      has_given_.wait(lock, [this] { return !given_.empty() || givers_left_ == 0 || failure_; });
      if (given_.empty() || failure_) return;
      const Given one = given_.front();
      given_.pop_front();
      lock.unlock();
      const Status done = hands_.take(one.index, one.bytes, spare);
      lock.lock();
      if (!done) return fail(done.error());
      free_.push_back(one.slot);
      has_room_.notify_one();
    }
  }

  // REQUIRES: `mutex_`.
  void fail(const Error& why) {
    if (!failure_) failure_ = why;
    has_room_.notify_all();
    has_given_.notify_all();
  }

  const uint64_t count_;
  const std::function<bool(uint64_t)>& is_wanted_;
  const BlockHands& hands_;
  const unsigned givers_, takers_;
  const BlockRoom room_;

  std::mutex mutex_;  // for all below
  std::condition_variable has_room_, has_given_;
  std::vector<size_t> free_;  // slots of `room_`
  std::deque<Given> given_;
  uint64_t next_ = 0;  // block
  unsigned givers_left_ = givers_;
  std::optional<Error> failure_;
};

}  // namespace

Status pass_blocks(uint64_t count, const std::function<bool(uint64_t index)>& is_wanted,
                   const BlockHands& hands) {
  return BlockPassing(count, is_wanted, hands).run();
}

}  // namespace krg
