// SPDX-License-Identifier: GPL-2.0-or-later
#include "read_blocks.h"

#include "pass_blocks.h"

namespace krg {

Status read_blocks(const PartReader& part, const std::function<bool(uint64_t index)>& is_wanted,
                   const BlockSink& sink) {
  BlockHands hands;
  hands.givers = kThreadsForDisk;
  hands.takers = threads_for_blocks();
  hands.give = [&](uint64_t index, std::span<std::byte> room) { return part.fetch(index, room); };
  hands.take = [&](uint64_t index, std::span<const std::byte> stored,
                   BlockBuffer& spare) -> Status {
    auto contents = part.unpack(index, stored, [&] { return spare.whole(); });
    return contents ? sink(index, *contents) : contents.error();
  };
  return pass_blocks(part.block_count(), is_wanted, hands);
}

}  // namespace krg
