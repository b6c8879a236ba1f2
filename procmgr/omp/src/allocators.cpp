// omp_alloc and its kin. All memory spaces are the machine's memory; alignment, pool size and
// fallback are honoured. Before each block lies what its release needs.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "team.h"

namespace krg::omp {
namespace {

enum : unsigned { kAlignment = 2, kPoolSize = 4, kFallback = 5, kFallbackData = 6, kPinned = 7 };
enum : std::uintptr_t {
  kDefaultFallback = 11,
  kNullFallback = 12,
  kAbortFallback = 13,
  kAllocatorFallback = 14
};
constexpr std::uintptr_t kTraitDefault = ~std::uintptr_t(0);

struct Trait {
  std::uint32_t key;
  std::uintptr_t value;
};

struct Allocator {
  std::size_t alignment = 1;
  std::size_t pool = SIZE_MAX;
  std::uintptr_t fallback = kDefaultFallback;
  std::uintptr_t fallback_allocator = 0;
  std::atomic<std::size_t> used{0};
};

struct Header {
  void* memory;
  std::size_t bytes;     // that the program asked for
  std::size_t all;       // that were taken
  Allocator* allocator;  // of a pool, or null
};

Allocator* own(std::uintptr_t handle) {
  return handle > kAllocators ? reinterpret_cast<Allocator*>(handle) : nullptr;
}

bool set_trait(Allocator& allocator, std::uint32_t key, std::uintptr_t value) {
  switch (key) {
    case kAlignment:
      if (value == kTraitDefault) value = 1;
      allocator.alignment = value;
      return value != 0 && (value & (value - 1)) == 0;
    case kPoolSize:
      allocator.pool = value == kTraitDefault ? SIZE_MAX : value;
      return true;
    case kFallback:
      allocator.fallback = value == kTraitDefault ? kDefaultFallback : value;
      return allocator.fallback >= kDefaultFallback && allocator.fallback <= kAllocatorFallback;
    case kFallbackData:
      allocator.fallback_allocator = value;
      return true;
    case kPinned:
      return value != 1;
    default:
      return key >= 1 && key <= 8;
  }
}

bool take(Allocator& allocator, std::size_t bytes) {
  std::size_t used = allocator.used.load();
  do {
    if (bytes > allocator.pool - used) return false;
  } while (!allocator.used.compare_exchange_weak(used, used + bytes));
  return true;
}

void* get(std::size_t alignment, std::size_t bytes, std::uintptr_t handle, bool zero) {
  if (bytes == 0) return nullptr;
  if (handle == 0) handle = settings.default_allocator;
  Allocator* allocator = own(handle);
  std::size_t aligned = std::max<std::size_t>(
      {alignment, alignof(std::max_align_t), allocator != nullptr ? allocator->alignment : 1});
  std::size_t all = 0;
  void* memory = nullptr;
  const bool possible = !__builtin_add_overflow(bytes, sizeof(Header) + aligned, &all);
  const bool limited = allocator != nullptr && allocator->pool != SIZE_MAX;
  if (possible && (!limited || take(*allocator, all))) {
    memory = zero ? std::calloc(1, all) : std::malloc(all);
    if (memory == nullptr && limited) allocator->used.fetch_sub(all);
  }
  if (memory == nullptr) {
    if (allocator == nullptr) return nullptr;
    switch (allocator->fallback) {
      case kNullFallback:
        return nullptr;
      case kAbortFallback:
        fatal("Out of memory allocating %zu bytes", bytes);
      case kAllocatorFallback:
        return get(alignment, bytes, allocator->fallback_allocator, zero);
      default:
        // Only a pool that is full differs from the default allocator.
        return limited ? get(aligned, bytes, 1, zero) : nullptr;
    }
  }
  auto address = reinterpret_cast<std::uintptr_t>(memory) + sizeof(Header);
  address = (address + aligned - 1) & ~(aligned - 1);
  const Header header{memory, bytes, all, limited ? allocator : nullptr};
  std::memcpy(reinterpret_cast<char*>(address) - sizeof header, &header, sizeof header);
  return reinterpret_cast<void*>(address);
}

Header header_of(const void* block) {
  Header header;
  std::memcpy(&header, static_cast<const char*>(block) - sizeof header, sizeof header);
  return header;
}

void release(void* block) {
  if (block == nullptr) return;
  const Header header = header_of(block);
  if (header.allocator != nullptr) header.allocator->used.fetch_sub(header.all);
  std::free(header.memory);
}

bool product(std::size_t a, std::size_t b, std::size_t& bytes) {
  return !__builtin_mul_overflow(a, b, &bytes);
}

std::uintptr_t init_allocator(std::int64_t count, const Trait* traits) {
  auto* allocator = new (this_thread().blocks.allocate(Side::node, sizeof(Allocator))) Allocator;
  for (std::int64_t i = 0; i < count; ++i) {
    if (set_trait(*allocator, traits[i].key, traits[i].value)) continue;
    this_thread().blocks.free(Side::node, allocator, sizeof(Allocator));
    return 0;
  }
  return reinterpret_cast<std::uintptr_t>(allocator);
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

std::uintptr_t omp_init_allocator(std::uintptr_t, int count, const Trait* traits) {
  return init_allocator(count, traits);
}
std::uintptr_t omp_init_allocator_(const std::uintptr_t*, const std::int32_t* count,
                                   const Trait* traits) {
  return init_allocator(*count, traits);
}
std::uintptr_t omp_init_allocator_8_(const std::uintptr_t*, const std::int64_t* count,
                                     const Trait* traits) {
  return init_allocator(*count, traits);
}
void omp_destroy_allocator(std::uintptr_t handle) {
  if (Allocator* allocator = own(handle))
    this_thread().blocks.free(Side::node, allocator, sizeof(Allocator));
}
void omp_destroy_allocator_(const std::uintptr_t* handle) {
  omp_destroy_allocator(*handle);
}
void omp_set_default_allocator(std::uintptr_t handle) {
  settings.default_allocator = handle != 0 ? handle : 1;
}
void omp_set_default_allocator_(const std::uintptr_t* handle) {
  omp_set_default_allocator(*handle);
}
std::uintptr_t omp_get_default_allocator() {
  return settings.default_allocator;
}
std::uintptr_t omp_get_default_allocator_() {
  return settings.default_allocator;
}

void* omp_alloc(std::size_t bytes, std::uintptr_t handle) {
  return get(1, bytes, handle, false);
}
void* omp_aligned_alloc(std::size_t alignment, std::size_t bytes, std::uintptr_t handle) {
  return get(alignment, bytes, handle, false);
}
void* omp_calloc(std::size_t count, std::size_t each, std::uintptr_t handle) {
  std::size_t bytes = 0;
  return product(count, each, bytes) ? get(1, bytes, handle, true) : nullptr;
}
void* omp_aligned_calloc(std::size_t alignment, std::size_t count, std::size_t each,
                         std::uintptr_t handle) {
  std::size_t bytes = 0;
  return product(count, each, bytes) ? get(alignment, bytes, handle, true) : nullptr;
}
void* omp_realloc(void* block, std::size_t bytes, std::uintptr_t handle, std::uintptr_t) {
  if (block == nullptr) return get(1, bytes, handle, false);
  if (bytes == 0) {
    release(block);
    return nullptr;
  }
  void* grown = get(1, bytes, handle, false);
  if (grown == nullptr) return nullptr;
  std::memcpy(grown, block, std::min(bytes, header_of(block).bytes));
  release(block);
  return grown;
}
void omp_free(void* block, std::uintptr_t) {
  release(block);
}

void* GOMP_alloc(std::size_t alignment, std::size_t bytes, std::uintptr_t handle) {
  return get(alignment, bytes, handle, false);
}
void GOMP_free(void* block, std::uintptr_t) {
  release(block);
}
}
