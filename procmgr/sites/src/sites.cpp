// Loaded before all other libraries by krgrun --stats: tells krgd which lines of the program
// allocate large memory (allocation_call.h), so that what is waited for can be told by them. The
// allocations themselves are those that the program would have without it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <execinfo.h>
#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>

#include "krg/procmgr/allocation_call.h"

namespace {

constexpr int kMostFrames = 48;

// Where the program's own file is mapped.
struct Program {
  std::uintptr_t base = 0, begin = UINTPTR_MAX, end = 0;

  Program() {
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* data) {
          static_cast<Program*>(data)->take(*info);
          return 1;  // the program is the first one
        },
        this);
  }
  void take(const dl_phdr_info& info) {
    base = info.dlpi_addr;
    for (int i = 0; i < info.dlpi_phnum; ++i) {
      const ElfW(Phdr)& part = info.dlpi_phdr[i];
      if (part.p_type != PT_LOAD) continue;
      const std::uintptr_t at = base + part.p_vaddr;
      begin = at < begin ? at : begin;
      end = at + part.p_memsz > end ? at + part.p_memsz : end;
    }
  }
};

thread_local bool is_busy = false;

void tell_sites(void* block, std::size_t bytes) {
  const Program program;
  void* frames[kMostFrames];
  std::uint64_t sites[krg::kMostSites] = {};
  const int count = backtrace(frames, kMostFrames);
  std::size_t found = 0;
  for (int i = 0; i < count && found < krg::kMostSites; ++i) {
    const auto at = reinterpret_cast<std::uintptr_t>(frames[i]);
    if (at >= program.begin && at < program.end) sites[found++] = std::uint32_t(at - program.base);
  }
  for (std::size_t i = 0; i < found; i += 4)
    syscall(SYS_clone3, krg::kTellsAllocation, 1 + i / 4, block, bytes,
            sites[i] | sites[i + 1] << 32, sites[i + 2] | sites[i + 3] << 32);
}

void tell(void* block, std::size_t bytes) {
  if (bytes < krg::kLeastTold || block == nullptr || is_busy) return;
  const int kept = errno;
  is_busy = true;
  if (std::getenv("KRG_STATS") != nullptr) tell_sites(block, bytes);
  is_busy = false;
  errno = kept;
}

// The function that the program would have called.
template <class F>
F* next_of(std::atomic<F*>& known, const char* name) {
  F* function = known.load(std::memory_order_relaxed);
  if (function != nullptr) return function;
  function = reinterpret_cast<F*>(dlsym(RTLD_NEXT, name));
  known.store(function, std::memory_order_relaxed);
  return function;
}

using Allocate = void*(std::size_t);
using AllocateTwo = void*(std::size_t, std::size_t);
using Reallocate = void*(void*, std::size_t);
using AllocateAligned = int(void**, std::size_t, std::size_t);
using Map = void*(void*, std::size_t, int, int, int, off_t);
std::atomic<Allocate*> next_malloc{nullptr};
std::atomic<AllocateTwo*> next_calloc{nullptr}, next_aligned_alloc{nullptr}, next_memalign{nullptr};
std::atomic<Reallocate*> next_realloc{nullptr};
std::atomic<AllocateAligned*> next_posix_memalign{nullptr};
std::atomic<Map*> next_mmap{nullptr}, next_mmap64{nullptr};

void* told(void* block, std::size_t bytes) {
  tell(block, bytes);
  return block;
}

void* told_mapping(void* block, std::size_t bytes, int protection) {
  if (block != MAP_FAILED && (protection & PROT_WRITE) != 0) tell(block, bytes);
  return block;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void* malloc(std::size_t bytes) noexcept {
  return told(next_of(next_malloc, "malloc")(bytes), bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
  return told(next_of(next_calloc, "calloc")(count, bytes), count * bytes);
}
void* realloc(void* before, std::size_t bytes) noexcept {
  return told(next_of(next_realloc, "realloc")(before, bytes), bytes);
}
int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) noexcept {
  const int failed = next_of(next_posix_memalign, "posix_memalign")(block, alignment, bytes);
  if (failed == 0) tell(*block, bytes);
  return failed;
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  return told(next_of(next_aligned_alloc, "aligned_alloc")(alignment, bytes), bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  return told(next_of(next_memalign, "memalign")(alignment, bytes), bytes);
}
void* mmap(void* at, std::size_t bytes, int protection, int flags, int file,
           off_t offset) noexcept {
  return told_mapping(next_of(next_mmap, "mmap")(at, bytes, protection, flags, file, offset), bytes,
                      protection);
}
void* mmap64(void* at, std::size_t bytes, int protection, int flags, int file,
             off64_t offset) noexcept {
  return told_mapping(next_of(next_mmap64, "mmap64")(at, bytes, protection, flags, file, offset),
                      bytes, protection);
}
}
#pragma GCC visibility pop
