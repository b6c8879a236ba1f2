// read_blocks(): blocks of a part go to who wants them: some threads do nothing but wait for the
// disk, so that it always has something to do, others check what has come and hand it on.
//
// Threads: any; it blocks. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "krg/checkpoint/part_file.h"
#include "krg/runtime/result.h"

namespace krg {

using BlockSink = std::function<Status(uint64_t index, std::span<const std::byte> contents)>;

// Calls `sink` once for each block of `part` for which `is_wanted`, in no order, by several
// threads, until one fails; `is_wanted` by one at a time. Errors: the first one: a block is
// damaged; those of `sink`.
Status read_blocks(const PartReader& part, const std::function<bool(uint64_t index)>& is_wanted,
                   const BlockSink& sink);

}  // namespace krg
