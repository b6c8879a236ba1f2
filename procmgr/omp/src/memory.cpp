// SPDX-License-Identifier: GPL-2.0-or-later
#include "memory.h"

#include <sys/mman.h>

#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "distant.h"
#include "waiting.h"

namespace krg::omp {
namespace {

constexpr std::size_t kSmallest = 64;
constexpr std::size_t kLargest = 64 * 1024;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kPiece = 1024 * 1024;  // what is asked of the kernel at a time
// Of node memory on several nodes: so small that its pages never have several writers.
constexpr std::size_t kSmallPiece = 124 * 1024;
constexpr unsigned kMostKept = 128;  // blocks in a thread's bin
constexpr unsigned kMostTaken =
    31;  // free blocks that a thread takes at a time besides the one that it needs

// Free blocks of one side and size that no thread keeps, and the rest of the last piece.
struct alignas(4096) SharedBlocks {
  Mutex mutex;
  void* first[11] = {};
  char* piece = nullptr;
  std::size_t left = 0;
};
SharedBlocks shared[2];

void* next_of(void* block) {
  void* next = nullptr;
  std::memcpy(&next, block, sizeof next);
  return next;
}
void set_next(void* block, void* next) {
  std::memcpy(block, &next, sizeof next);
}

unsigned class_of(std::size_t bytes) {
  return bytes <= kSmallest ? 0 : unsigned(std::bit_width(bytes - 1)) - 6;
}

// REQUIRES: the mutex of `from` is held.
void* cut(SharedBlocks& from, std::size_t bytes) {
  const std::size_t alignment = bytes < 4096 ? bytes : 4096;
  const std::size_t skip =
      std::size_t(-reinterpret_cast<std::uintptr_t>(from.piece)) & (alignment - 1);
  if (from.left < bytes + skip) {
    from.left =
        &from == &shared[unsigned(Side::node)] && distant::nodes() > 1 ? kSmallPiece : kPiece;
    from.piece = static_cast<char*>(permanent_memory(from.left));
    return cut(from, bytes);
  }
  void* block = from.piece + skip;
  from.piece += skip + bytes;
  from.left -= skip + bytes;
  return block;
}

}  // namespace

void* permanent_memory(std::size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) fatal("no memory for %zu bytes", bytes);
  return memory;
}

void* BlockCache::allocate(Side side, std::size_t bytes) {
  if (bytes > kLargest) return permanent_memory(bytes);
  const unsigned size_class = class_of(bytes);
  Bin& bin = bins_[unsigned(side)][size_class];
  if (bin.first != nullptr) {
    void* block = bin.first;
    bin.first = next_of(block);
    --bin.count;
    return block;
  }
  SharedBlocks& blocks = shared[unsigned(side)];
  const Locked locked(blocks.mutex);
  if (void* block = blocks.first[size_class]) {
    void* end = next_of(block);
    for (; end != nullptr && bin.count < kMostTaken; ++bin.count) {
      void* next = next_of(end);
      set_next(end, bin.first);
      bin.first = end;
      end = next;
    }
    blocks.first[size_class] = end;
    return block;
  }
  const std::size_t size = kSmallest << size_class;
  if (distant::nodes() == 1 || size >= kPage) return cut(blocks, size);
  // A whole page for this thread: others may run on other nodes.
  char* page = static_cast<char*>(cut(blocks, kPage));
  for (std::size_t at = size; at < kPage; at += size, ++bin.count) {
    set_next(page + at, bin.first);
    bin.first = page + at;
  }
  return page;
}

void BlockCache::free(Side side, void* block, std::size_t bytes) {
  if (bytes > kLargest) {
    munmap(block, bytes);
    return;
  }
  const unsigned size_class = class_of(bytes);
  Bin& bin = bins_[unsigned(side)][size_class];
  set_next(block, bin.first);
  bin.first = block;
  if (++bin.count <= kMostKept) return;
  // Half of them for whoever lacks some: a thread that only makes tasks gets them from those that
  // run them.
  SharedBlocks& blocks = shared[unsigned(side)];
  void* last = bin.first;
  for (unsigned i = 1; i < kMostKept / 2; ++i) last = next_of(last);
  void* kept = next_of(last);
  const Locked locked(blocks.mutex);
  set_next(last, blocks.first[size_class]);
  blocks.first[size_class] = bin.first;
  bin.first = kept;
  bin.count -= kMostKept / 2;
}

void BlockCache::give_back() {
  for (unsigned side = 0; side < 2; ++side) {
    const Locked locked(shared[side].mutex);
    for (unsigned i = 0; i < kClasses; ++i) {
      while (void* block = bins_[side][i].first) {
        bins_[side][i].first = next_of(block);
        set_next(block, shared[side].first[i]);
        shared[side].first[i] = block;
      }
      bins_[side][i].count = 0;
    }
  }
}

void free_memory_locks() {
  for (SharedBlocks& blocks : shared) new (&blocks.mutex) Mutex;
}

void complain(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("\nlibgomp: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
}

void fatal(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("\nlibgomp: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  va_end(arguments);
  std::exit(EXIT_FAILURE);
}

}  // namespace krg::omp
