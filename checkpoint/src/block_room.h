// BlockRoom: room for blocks of a part, in huge pages where the kernel has some: what a disk is to
// read lies in one piece then, for which a virtual machine's takes a third less (PERFORMANCE.md).
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>

#include "krg/checkpoint/part_file.h"

namespace krg {

class BlockRoom {
 public:
  explicit BlockRoom(size_t blocks)
      : bytes_((blocks * kCheckpointBlock + kHugePage - 1) / kHugePage * kHugePage + kHugePage),
        mapped_(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) {
    if (mapped_ == MAP_FAILED) throw std::bad_alloc();
    const auto start = reinterpret_cast<uintptr_t>(mapped_);
    const uintptr_t skip = (kHugePage - start % kHugePage) % kHugePage;
    first_ = static_cast<std::byte*>(mapped_) + skip;
    madvise(first_, bytes_ - kHugePage, MADV_HUGEPAGE);
  }
  ~BlockRoom() { munmap(mapped_, bytes_); }
  BlockRoom(const BlockRoom&) = delete;
  BlockRoom& operator=(const BlockRoom&) = delete;

  // For block number `slot`, counted from 0.
  std::span<std::byte> at(size_t slot) const {
    return {first_ + slot * kCheckpointBlock, kCheckpointBlock};
  }

 private:
  static constexpr size_t kHugePage = 2u << 20;
  const size_t bytes_;
  void* const mapped_;
  std::byte* first_ = nullptr;
};

}  // namespace krg
