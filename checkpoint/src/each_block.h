// each_block(): work on the blocks of a part, by two threads: while one waits for the disk, the
// other has the processor. Threads: any; it blocks. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <cstddef>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "krg/checkpoint/part_file.h"
#include "krg/runtime/result.h"

namespace krg {

// Calls `work(index, buffer)` once for each block below `count`, in no order, with a buffer of
// kCheckpointBlock bytes, until one fails. Errors: the first one of `work`.
template <class Work>
Status each_block(uint64_t count, const Work& work) {
  constexpr unsigned kThreads = 2;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> has_failed{false};
  std::mutex mutex;
  std::optional<Error> failure;
  auto take_blocks = [&] {
    std::vector<std::byte> block(kCheckpointBlock);
    for (uint64_t i = next++; i < count && !has_failed; i = next++) {
      const Status done = work(i, std::span(block));
      if (done) continue;
      std::lock_guard lock(mutex);
      has_failed = true;
      if (!failure) failure = done.error();
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (unsigned i = 1; i < kThreads; ++i) helpers.emplace_back(take_blocks);
    take_blocks();
  }
  return failure ? Status(*failure) : Status();
}

}  // namespace krg
