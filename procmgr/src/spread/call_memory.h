// CallMemory: where arguments of system calls that krgd answers lie meanwhile: memory of the
// process that is at home only, so that krgd finds it and nobody takes it away. Of a loan the
// program knows nothing. Threads: the loop's thread. Owned by SpreadScratch.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "krg/runtime/types.h"

namespace krg {

class CallMemory {
  struct Lent;

 public:
  // Move-only; given back at its end.
  class Loan {
   public:
    Loan(Loan&& other) noexcept = default;
    Loan& operator=(Loan&& other) noexcept;
    ~Loan() { give_back(); }
    RemoteAddr address() const { return address_; }  // in the process
    std::span<char> bytes() const { return bytes_; }

   private:
    friend class CallMemory;
    Loan(std::shared_ptr<Lent> from, uint64_t offset, RemoteAddr address, std::span<char> bytes)
        : from_(std::move(from)), offset_(offset), address_(address), bytes_(bytes) {}
    void give_back();

    std::shared_ptr<Lent> from_;
    uint64_t offset_;
    RemoteAddr address_;
    std::span<char> bytes_;
  };

  CallMemory() = default;
  // The same memory as it is mapped here and in the process.
  CallMemory(std::span<char> here, RemoteAddr there);

  // None: there is no room.
  std::optional<Loan> lend(uint64_t bytes);

 private:
  // By their beginning, what is lent. Loans may outlive the memory.
  struct Lent {
    std::map<uint64_t, uint64_t> pieces = {};
  };

  std::shared_ptr<Lent> lent_ = std::make_shared<Lent>();
  std::span<char> here_;
  RemoteAddr there_{};
};

}  // namespace krg
