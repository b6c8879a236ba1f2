// What nodes say to each other about futexes. The home of all queues is the lowest node that lives.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "ipc_call.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/shared_memory.h"

namespace krg::futex_messages {

// A SharedPlace on its way.
struct Place {
  uint64_t set = 0, page = 0;
  uint32_t offset = 0, padding = 0;
  static Place of(const SharedPlace& place) {
    return {place.set.value, place.page.value, static_cast<uint32_t>(place.offset), 0};
  }
  SharedPlace value() const { return {SetId{set}, PageIndex{page}, offset}; }
};
static_assert(sizeof(Place) == 24);

// Answered when it is queued.
struct QueueWaiter {
  static constexpr uint16_t kId = message_ids::kIpc + 5;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t bits = 0;
  uint64_t ticket = 0;
  Place place;
};
static_assert(sizeof(QueueWaiter) == 40);

// Answered with one byte: 1 when it still waited; 0: it was woken, of which it has been told.
struct LeaveQueue {
  static constexpr uint16_t kId = message_ids::kIpc + 6;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  uint64_t ticket = 0;
};
static_assert(sizeof(LeaveQueue) == 16);

// `place`: where it waited at last; a wake-up that reaches nobody is another waiter's.
struct WaiterWoken {
  static constexpr uint16_t kId = message_ids::kIpc + 7;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  uint64_t ticket = 0;
  Place place;
};
static_assert(sizeof(WaiterWoken) == 40);

// Wakes `wake`, then moves `move` to another place. Answered with the number of both (8 bytes).
struct WakeWaiters {
  static constexpr uint16_t kId = message_ids::kIpc + 8;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t bits = ~0u;
  uint32_t wake = 0, move = 0;
  Place place, to;
};
static_assert(sizeof(WakeWaiters) == 64);

// To every node: a process that used the set's words has ended. Its robust mutexes are free, which
// the kernel has written into them, so that waiters who look find another value.
struct LookAtWords {
  static constexpr uint16_t kId = message_ids::kIpc + 9;
  uint8_t version = 1;
  uint8_t padding[7] = {};
  uint64_t set = 0;
};
static_assert(sizeof(LookAtWords) == 16);

// To the node that the thread's number belongs to. Answered with one byte: 1 when it lives.
struct AskAlive {
  static constexpr uint16_t kId = message_ids::kIpc + 10;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t tid = 0;
};
static_assert(sizeof(AskAlive) == 8);

// To the home: "this word names a dead owner; may I mark it?" Answered with one byte: 1 for yes.
struct ClaimWord {
  static constexpr uint16_t kId = message_ids::kIpc + 11;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t word = 0;
  Place place;
};
static_assert(sizeof(ClaimWord) == 32);

// The home to every node: so many more programs wait for the word (futex_bells.h). Answered when a
// wake there reaches as many.
struct HangBells {
  static constexpr uint16_t kId = message_ids::kIpc + 12;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t count = 0;
  Place place;
};
static_assert(sizeof(HangBells) == 32);

// So many less.
struct TakeBells {
  static constexpr uint16_t kId = message_ids::kIpc + 13;
  static constexpr uint32_t kAll = ~0u;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t count = 0;
  Place place;
};
static_assert(sizeof(TakeBells) == 32);

// To the home: a wake of the sender's kernel has reached so many.
struct BellsRung {
  static constexpr uint16_t kId = message_ids::kIpc + 14;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t count = 0;
  Place place;
};
static_assert(sizeof(BellsRung) == 32);

// To the sender's own shared memory: an owner's or waiter's change of a lock's word, with priority
// inheritance (priority_locks.h). Answered with the word before it (4 bytes). Errors: of
// PageSet::update(); ENOENT.
struct ChangeLock {
  static constexpr uint16_t kId = message_ids::kSharedMemory + 13;
  enum What : uint8_t { kTake, kTry, kFree };
  uint8_t version = 1;
  uint8_t what = kTake;
  uint8_t padding[2] = {};
  int32_t tid = 0;
  Place place;
};
static_assert(sizeof(ChangeLock) == 32);

}  // namespace krg::futex_messages
