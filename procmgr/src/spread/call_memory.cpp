// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/call_memory.h"

namespace krg {
namespace {

constexpr uint64_t kAlignment = 64;

}  // namespace

CallMemory::CallMemory(std::span<char> here, RemoteAddr there) : here_(here), there_(there) {}

// The first gap that is large enough.
std::optional<CallMemory::Loan> CallMemory::lend(uint64_t bytes) {
  if (bytes > here_.size()) return std::nullopt;
  const uint64_t wanted = (bytes + kAlignment) / kAlignment * kAlignment;  // never nothing
  uint64_t at = 0;
  for (const auto& [start, size] : lent_->pieces) {
    if (start - at >= wanted) break;
    at = start + size;
  }
  if (at + wanted > here_.size()) return std::nullopt;
  lent_->pieces[at] = wanted;
  return Loan(lent_, at, there_ + at, here_.subspan(at, bytes));
}

CallMemory::Loan& CallMemory::Loan::operator=(Loan&& other) noexcept {
  std::swap(from_, other.from_);
  std::swap(offset_, other.offset_);
  std::swap(address_, other.address_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void CallMemory::Loan::give_back() {
  if (const auto from = std::exchange(from_, nullptr)) from->pieces.erase(offset_);
}

}  // namespace krg
