// Loops, sections and the like: what the members of a team divide among themselves. A team has a
// ring of slots; a member that is ahead (nowait) may be at most kShareSlots constructs ahead of the
// slowest. The first member that comes to a construct claims the slot and describes the construct
// in it, the last one that leaves it frees it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <atomic>
#include <cstdint>

#include "abi.h"
#include "waiting.h"

namespace krg::omp {

struct Team;
struct Thread;
struct Doacross;

inline constexpr unsigned kShareSlots = 8;

// A loop's iterations are numbered from 0; a number's value is first + number * step in modulo
// arithmetic.
struct Iterations {
  std::uint64_t count = 0;
  std::uint64_t first = 0;
  std::uint64_t step = 1;
  std::uint64_t end = 0;  // the bound as the program wrote it
};

// Chunks that a member has for itself (distant.h).
struct Batch {
  std::uint64_t begin = 0, end = 0;
  std::uint64_t chunks = 1;    // that it asks for
  std::uint64_t asked_ns = 0;  // when it got the last ones
};

struct alignas(64) WorkShare {
  std::atomic<std::uint32_t> state{
      0};  // 2 n + 1: claimed for construct n of the team; 2 n + 2: described
  Schedule schedule = Schedule::fixed;
  bool ordered = false;
  std::uint64_t chunk = 1;
  Iterations iterations;
  ReductionArray reductions = nullptr;  // of the member that claimed it
  void* scratch = nullptr;              // memory that the members share until they leave
  std::size_t scratch_bytes = 0;
  Doacross* doacross = nullptr;
  bool distant = false;  // one member's own: the others are on several nodes
  bool claimed = false;  // distant: the members share `scratch`
  Batch batch;
  alignas(64) std::atomic<std::uint64_t> next{0};   // first iteration that nobody has
  alignas(64) std::atomic<std::uint32_t> users{0};  // 1 + members that have not left; 0: free
  EventCount changed;                               // users, state, turn
  std::atomic<std::uint64_t> turn{0};               // ordered: the iteration whose chunk may go on
};

// Comes to the next construct. True: the caller has claimed it, describes it and calls described().
bool enter_share(Thread& thread);
void described(Thread& thread);
void leave_share(Thread& thread);

// Claims the first construct of a team that has not started, for all members.
WorkShare& claim_first_share(Team& team);

void describe_loop(WorkShare& share, const Iterations& iterations, Schedule schedule,
                   std::uint64_t chunk);

// The next chunk of iterations [begin, end) for the caller; false: none is left.
bool next_chunk(Thread& thread, std::uint64_t& begin, std::uint64_t& end);

// Of a share that is one member's own.
bool next_distant_chunk(Thread& thread, WorkShare& share, std::uint64_t& begin, std::uint64_t& end);

// The same for a dynamic loop that is not ordered.
inline bool next_dynamic_chunk(WorkShare& share, std::uint64_t& begin, std::uint64_t& end) {
  const std::uint64_t count = share.iterations.count;
  const std::uint64_t chunk = share.chunk;
  if (__builtin_expect(count <= (std::uint64_t(1) << 62) && chunk <= (std::uint64_t(1) << 32), 1)) {
    // Cannot wrap: each member makes one attempt beyond the end.
    begin = share.next.fetch_add(chunk, std::memory_order_relaxed);
    if (begin >= count) return false;
    end = count - begin > chunk ? begin + chunk : count;
    return true;
  }
  begin = share.next.load(std::memory_order_relaxed);
  do {
    if (begin >= count) return false;
    end = count - begin > chunk ? begin + chunk : count;
  } while (!share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
  return true;
}

// ordered: waits until all chunks before the caller's are done; then, with its own chunk, hands on
// the turn.
void wait_for_turn(Thread& thread);
void hand_on_turn(Thread& thread);

// doacross.cpp
void describe_doacross(Thread& thread, WorkShare& share, unsigned dimensions,
                       const std::uint64_t* counts);
void free_doacross(Thread& thread, WorkShare& share);

}  // namespace krg::omp
