// What an ofi transport has libfabric do: each operation is the context that the provider gives
// back when it is done.
// Owner: the transport. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <rdma/fabric.h>

#include <memory>
#include <span>

#include "krg/runtime/transport.h"
#include "message_streams.h"

namespace krg {

// A frame stays below rxm's eager limit (16 KiB with rxm's own header): one copy, no rendezvous.
inline constexpr size_t kFrameBytes = 16 * 1024 - 256;
static_assert(kFrameBytes >= kMinFrameBytes);
// What does not fit into a few of those goes in large ones: the receiver is told of it, and reads
// it from here in one piece.
inline constexpr size_t kLargeFrameBytes = 512 * 1024;
inline constexpr size_t kLargeFrom = 4 * kFrameBytes;

// What libfabric is given as the context of an operation; it must lie at the start (FI_CONTEXT).
struct Operation {
  enum class Kind : uint8_t { kReceive, kSend, kOneSided };
  fi_context2 context{};
  Kind kind;
  explicit Operation(Kind k) : kind(k) {}
};

struct FrameOperation : Operation {
  FrameOperation(Kind k, size_t n) : Operation(k), size(n), buffer(new std::byte[n]) {}
  bool is_large() const { return size > kFrameBytes; }
  uint16_t peer = 0;
  size_t length = 0;
  const size_t size;
  std::unique_ptr<std::byte[]> buffer;
};

// A get, put or atomic; the provider holds pointers into it until it completes, even when its peer
// failed long ago.
struct OneSidedOperation : Operation {
  enum class Verb : uint8_t { kGet, kPut, kFetchAdd, kCompareSwap };
  OneSidedOperation() : Operation(Kind::kOneSided) {}
  Verb verb = Verb::kGet;
  uint16_t peer = 0;
  uint64_t address = 0, key = 0;
  std::span<std::byte> local;
  uint64_t operand = 0, expected = 0, previous = 0;
  AtomicCompletion done;  // empty: failed already, or not in use
};

}  // namespace krg
