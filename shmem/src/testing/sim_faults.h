// Faults: bugs that a protocol of this kind typically has, put in on purpose, to show that the
// simulator finds them. Each strikes at random, where it can, at the border between the protocol
// and the network.
//
// Owned by SimCluster. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <random>
#include <string_view>
#include <vector>

#include "krg/shmem/kddm_protocol.h"

namespace krg::kddm {

enum class Fault : uint8_t {
  kNone,
  kKeepStaleCopy,      // an invalidation is acknowledged, the copy stays
  kAckPinnedCopy,      // an invalidation is acknowledged while readers use the copy
  kLoseAck,            // an invalidation's ack is not sent
  kAckTwice,           // it is sent twice
  kCountAckLess,       // ownership comes with too small a count of acks
  kForgetReader,       // the owner does not note whom it sent a copy
  kKeepOvertakenCopy,  // a copy is kept although an invalidation has overtaken it
  kSendOldBytes,       // the object's last write is not in the bytes sent
  kForgetTail,         // the manager does not note whom it promised ownership
  kGrantEveryGift,     // the manager allows a gift although it promised ownership to another
  kForgetGiftCopyset,  // a gift comes without its copyset
  kDuplicate,          // a message arrives twice
  kReorderPair,        // messages of one pair of nodes overtake each other
  kShiftRun,           // an object in a run gets the bytes of the one before it
};
inline constexpr unsigned kFaultCount = 15;
std::string_view name_of(Fault fault);

class FaultInjector {
 public:
  FaultInjector(Fault fault, uint64_t seed) : fault_(fault), random_(seed ^ 0xfa171ull) {}

  Fault fault() const { return fault_; }
  // Whether this fault is on and strikes now.
  bool strikes(Fault fault) {
    return fault == fault_ && (fault == Fault::kKeepOvertakenCopy || random_() % 4 == 0);
  }
  // Changes what a protocol step did to the entry and wants done.
  void change_step(Entry& entry, Actions& actions);
  // Changes the bytes that go with a message.
  uint64_t change_bytes(const Message& message, uint64_t data);
  // Whether the entry's step for this message is skipped; `actions` then says what is done instead.
  bool replace_receive(Entry& entry, const Message& message, Actions& actions);
  // Changes the manager's decision, made on `before`.
  void change_direction(const DirectoryEntry& before, DirectoryEntry& after, Actions& actions);

 private:
  Fault fault_;
  std::mt19937_64 random_;
};

}  // namespace krg::kddm
