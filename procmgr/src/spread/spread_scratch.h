// SpreadScratch: memory of a spread process that is at home only, and krgd's, too: a word for each
// thread, by which krgd ends its wait for a futex, and which calls that krgd has it make may use;
// behind these, what is lent to calls for their arguments.
// It is pages of the set that nobody else maps and no protocol knows of.
//
// Threads: the loop's thread. Owned by SpreadProcess. Source: futex(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <span>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "krg/shmem/page_set.h"
#include "spread/call_memory.h"

namespace krg {

class SpreadScratch {
 public:
  static constexpr uint64_t kWordBytes = 16 * kPageBytes, kLentBytes = uint64_t{1} << 20;
  static constexpr uint64_t kBytes = kWordBytes + kLentBytes;
  // Threads beyond this share their words: they wake each other for nothing.
  static constexpr uint64_t kSlots = kWordBytes / sizeof(uint64_t);

  SpreadScratch() = default;
  SpreadScratch(SpreadScratch&& other) noexcept;
  SpreadScratch& operator=(SpreadScratch&& other) noexcept;
  ~SpreadScratch();
  // `address`: where the process has mapped it. Errors: of mmap(2).
  static Result<SpreadScratch> map(const PageSet& pages, PageIndex first, RemoteAddr address);

  RemoteAddr address_of(uint64_t slot) const;
  uint64_t read(uint64_t slot) const;
  // The next FUTEX_WAIT (of a shared futex) for 0 waits.
  void close(uint64_t slot);
  // It does not, and who waits goes on.
  void open(uint64_t slot);
  // None: there is no room.
  std::optional<CallMemory::Loan> lend(uint64_t bytes) { return call_memory_.lend(bytes); }

 private:
  std::span<uint64_t> words_;  // of this process
  RemoteAddr address_{};
  CallMemory call_memory_;
};

}  // namespace krg
