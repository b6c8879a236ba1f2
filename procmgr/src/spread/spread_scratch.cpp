// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_scratch.h"

#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <utility>

namespace krg {

SpreadScratch::SpreadScratch(SpreadScratch&& other) noexcept
    : words_(std::exchange(other.words_, {})),
      address_(other.address_),
      call_memory_(std::move(other.call_memory_)) {}

SpreadScratch& SpreadScratch::operator=(SpreadScratch&& other) noexcept {
  std::swap(words_, other.words_);
  std::swap(address_, other.address_);
  std::swap(call_memory_, other.call_memory_);
  return *this;
}

SpreadScratch::~SpreadScratch() {
  if (!words_.empty()) munmap(words_.data(), kBytes);
}

Result<SpreadScratch> SpreadScratch::map(const PageSet& pages, PageIndex first,
                                         RemoteAddr address) {
  void* mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, pages.memory(),
                      static_cast<off_t>(first.value * kPageBytes));
  if (mapped == MAP_FAILED) return errno_error("mmap");
  SpreadScratch scratch;
  scratch.words_ = {static_cast<uint64_t*>(mapped), kSlots};
  scratch.address_ = address;
  scratch.call_memory_ =
      CallMemory({static_cast<char*>(mapped) + kWordBytes, kLentBytes}, address + kWordBytes);
  return scratch;
}

RemoteAddr SpreadScratch::address_of(uint64_t slot) const {
  return address_ + slot % kSlots * sizeof(uint64_t);
}

uint64_t SpreadScratch::read(uint64_t slot) const {
  return words_[slot % kSlots];
}

void SpreadScratch::close(uint64_t slot) {
  std::atomic_ref(words_[slot % kSlots]).store(0);
}

void SpreadScratch::open(uint64_t slot) {
  uint64_t& word = words_[slot % kSlots];
  std::atomic_ref(word).store(1);
  syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace krg
