// Blocks of memory for the runtime. `node` memory holds its own state: teams, tasks, queues; no
// page or cache line of it has anything of the program's, and no address of it is seen by the
// program. `program` memory is what programs read and write although the runtime allocates it:
// tasks' arguments, private copies of reductions, scratch of loops. Each thread keeps freed blocks
// for its next allocations (BlockCache); a block may be freed by any thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <cstdint>

namespace krg::omp {

enum class Side : std::uint8_t { node, program };

class BlockCache {
 public:
  // REQUIRES: the same size at free as at allocate. Blocks are aligned to 64 bytes, up to the size
  // of a page to their size's next power of two. Never null: ends the program when the kernel has
  // no memory.
  void* allocate(Side side, std::size_t bytes);
  void free(Side side, void* block, std::size_t bytes);

  // Gives all blocks back to the pool that threads share.
  void give_back();

 private:
  static constexpr unsigned kClasses = 11;  // 64 bytes to 64 KiB
  struct Bin {
    void* first = nullptr;
    unsigned count = 0;
  };
  Bin bins_[2][kClasses];
};

// Whole pages, zeroed, never given back: for what lives as long as the process.
void* permanent_memory(std::size_t bytes);

// In a child of fork(): nobody holds the pool's locks.
void free_memory_locks();

// A message on stderr, then the end of the process.
[[noreturn]] void fatal(const char* format, ...) __attribute__((format(printf, 1, 2)));
void complain(const char* format, ...) __attribute__((format(printf, 1, 2)));

}  // namespace krg::omp
