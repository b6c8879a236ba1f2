// SPDX-License-Identifier: GPL-2.0-or-later
#include "pin_arena.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>

namespace krg {
namespace {

constexpr uint64_t kPageAlignment = 4096;  // larger places begin a page

unsigned class_of(size_t bytes) {
  return static_cast<unsigned>(std::bit_width(std::max(bytes, kSmallestPlace) - 1));
}

}  // namespace

Result<std::unique_ptr<PinArena>> PinArena::create() {
  UniqueFd memfd(memfd_create("krg-pins", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd || ftruncate(memfd.get(), kPinArenaBytes) != 0 ||
      // The client has it too: it must not be able to take pages away under us.
      fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return errno_error("memory for a client's pins");
  void* base = mmap(nullptr, kPinArenaBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                    memfd.get(), 0);
  if (base == MAP_FAILED) return errno_error("memory for a client's pins");
  return std::unique_ptr<PinArena>(new PinArena(std::move(memfd), static_cast<std::byte*>(base)));
}

PinArena::~PinArena() {
  munmap(base_, kPinArenaBytes);
}

std::optional<PinArena::Place> PinArena::take(size_t bytes) {
  const unsigned size_class = class_of(bytes);
  const uint64_t size = uint64_t{1} << size_class;
  uint64_t offset;
  if (auto& free = free_[size_class]; !free.empty()) {
    offset = free.back();
    free.pop_back();
  } else {
    const uint64_t alignment = std::min(size, kPageAlignment);
    offset = (used_ + alignment - 1) & ~(alignment - 1);
    if (offset + size > kPinArenaBytes) {
      if (places_ > 0 || size > kPinArenaBytes) return std::nullopt;
      for (auto& places : free_) places.clear();
      offset = 0;
    }
    used_ = offset + size;
  }
  ++places_;
  return Place{offset, {base_ + offset, bytes}};
}

void PinArena::give_back(const Place& place) {
  --places_;
  free_[class_of(place.bytes.size())].push_back(place.offset);
}

}  // namespace krg
