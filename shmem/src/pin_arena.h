// PinArena: the memory that a node shares with one client: a sealed memfd in which each pinned
// object has a place while the client uses it. Places are of sizes that are powers of two; a freed
// one is taken again by the next pin of its size; by one of any size once nothing is pinned.
//
// Threads: the loop's thread. Owned by the client's session (client_session.h).
// Source: memfd_create(2), fcntl(2) F_ADD_SEALS. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// What a client may have pinned at once; only what is touched takes memory.
inline constexpr size_t kPinArenaBytes = 1u << 30;
// A place has so many bytes at least.
inline constexpr size_t kSmallestPlace = 64;

class PinArena {
 public:
  struct Place {
    uint64_t offset = 0;
    std::span<std::byte> bytes;
  };

  static Result<std::unique_ptr<PinArena>> create();
  ~PinArena();
  PinArena(const PinArena&) = delete;
  PinArena& operator=(const PinArena&) = delete;

  int fd() const { return memfd_.get(); }
  // None when so much is pinned that no place of this size is left.
  std::optional<Place> take(size_t bytes);
  // REQUIRES: take() gave the place.
  void give_back(const Place& place);

 private:
  PinArena(UniqueFd memfd, std::byte* base) : memfd_(std::move(memfd)), base_(base) {}

  static constexpr unsigned kClasses = 48;
  UniqueFd memfd_;
  std::byte* base_;
  uint64_t used_ = 0;  // what has been given out lies below
  size_t places_ = 0;  // that are given out
  std::array<std::vector<uint64_t>, kClasses> free_;
};

}  // namespace krg
