// pass_blocks(): blocks of a part pass two hands, one of which waits for the disk and the other has
// work for a processor: each has threads of its own, so that the disk always has something to do.
//
// Threads: any; it blocks.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "each_block.h"
#include "krg/runtime/result.h"

namespace krg {

inline constexpr unsigned kThreadsForDisk = 4;  // so many blocks at once are asked of it

struct BlockHands {
  // First: block `index`, in `room` (kCheckpointBlock, in huge pages) or where it lies anyway.
  std::function<Result<std::span<const std::byte>>(uint64_t index, std::span<std::byte> room)> give;
  // Then. `spare` is the thread's own.
  std::function<Status(uint64_t index, std::span<const std::byte> given, BlockBuffer& spare)> take;
  unsigned givers = 1, takers = 1;  // threads at the most
};

// Once for each block below `count` for which `is_wanted` (asked by one at a time), in no order,
// until one fails. Errors: the first one.
Status pass_blocks(uint64_t count, const std::function<bool(uint64_t index)>& is_wanted,
                   const BlockHands& hands);

}  // namespace krg
