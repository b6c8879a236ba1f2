// each_block(): work on the blocks of a part, by several threads: while one waits for the disk,
// another has the processor. Threads: any; it blocks.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "krg/checkpoint/part_file.h"
#include "krg/runtime/result.h"

namespace krg {

// Room for a block, made when it is asked for; the disk may write to it (PartReader).
class BlockBuffer {
 public:
  // REQUIRES: at most kCheckpointBlock.
  std::span<std::byte> of(uint64_t bytes) {
    if (!room_)
      room_.reset(static_cast<std::byte*>(std::aligned_alloc(kCheckpointPage, kCheckpointBlock)));
    if (!room_) throw std::bad_alloc();
    return {room_.get(), bytes};
  }
  std::span<std::byte> whole() { return of(kCheckpointBlock); }

 private:
  struct Free {
    void operator()(std::byte* room) const { std::free(room); }
  };
  std::unique_ptr<std::byte, Free> room_;
};

// Two to four, for work that takes the processor's time rather than the disk's.
inline unsigned threads_for_blocks() {
  return std::clamp(std::thread::hardware_concurrency() / 2, 2u, 4u);
}

// Calls `work(index, buffer)` once for each block below `count`, in no order, until one fails.
// Errors: the first one of `work`.
template <class Work>
Status each_block(uint64_t count, const Work& work) {
  std::atomic<uint64_t> next{0};
  std::atomic<bool> has_failed{false};
  std::mutex mutex;
  std::optional<Error> failure;
  auto take_blocks = [&] {
    BlockBuffer block;
    for (uint64_t i = next++; i < count && !has_failed; i = next++) {
      const Status done = work(i, block);
      if (done) continue;
      std::lock_guard lock(mutex);
      has_failed = true;
      if (!failure) failure = done.error();
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (unsigned i = 1; i < threads_for_blocks(); ++i) helpers.emplace_back(take_blocks);
    take_blocks();
  }
  return failure ? Status(*failure) : Status();
}

}  // namespace krg
