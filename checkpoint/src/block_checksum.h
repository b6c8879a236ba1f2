// block_checksum(): XXH3, 64 bits, by the widest instructions that the processor has, where the
// library knows to choose them (x86; half of the time). Threads: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <span>

// In libxxhash since 0.8, if it was built so; weak: otherwise null.
extern "C" [[gnu::weak]] XXH64_hash_t XXH3_64bits_dispatch(const void* input, size_t bytes);

namespace krg {

inline uint64_t block_checksum(std::span<const std::byte> bytes) {
  return XXH3_64bits_dispatch ? XXH3_64bits_dispatch(bytes.data(), bytes.size())
                              : XXH3_64bits(bytes.data(), bytes.size());
}

}  // namespace krg
