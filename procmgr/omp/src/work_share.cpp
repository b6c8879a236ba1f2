// SPDX-License-Identifier: GPL-2.0-or-later
#include "work_share.h"

#include <algorithm>

#include "distant.h"

namespace krg::omp {
namespace {

std::uint32_t claimed(std::uint32_t construct) {
  return 2 * construct + 1;
}
std::uint32_t complete(std::uint32_t construct) {
  return 2 * construct + 2;
}

// Until the slot's last construct, which `state` tells of, has been left by all, or another member
// has claimed the slot.
void wait_until_free(WorkShare& share, std::uint32_t state) {
  const auto free = [&] {
    return share.users.load(std::memory_order_seq_cst) == 0 ||
           share.state.load(std::memory_order_seq_cst) != state;
  };
  if (!free()) share.changed.wait(free);
}

// The caller's part of a static schedule in the trip that it is about to make.
bool next_fixed(Thread& thread, const WorkShare& share, std::uint64_t& begin, std::uint64_t& end) {
  const std::uint64_t count = share.iterations.count;
  const std::uint64_t members = thread.at.team->size;
  const std::uint64_t number = thread.at.number;
  const std::uint64_t trip = thread.at.trip++;
  if (share.chunk == 0) {
    if (trip != 0) return false;
    const std::uint64_t each = count / members;
    const std::uint64_t more = count % members;
    begin = each * number + std::min(number, more);
    end = begin + each + (number < more ? 1 : 0);
    return begin < end;
  }
  // In chunks, since their number times their size may exceed 64 bits.
  const std::uint64_t chunks = count / share.chunk + (count % share.chunk != 0 ? 1 : 0);
  const std::uint64_t mine = trip * members + number;
  if (mine >= chunks) return false;
  begin = mine * share.chunk;
  end = mine + 1 == chunks ? count : begin + share.chunk;
  return true;
}

bool next_guided(const Thread& thread, WorkShare& share, std::uint64_t& begin, std::uint64_t& end) {
  const std::uint64_t count = share.iterations.count;
  const std::uint64_t members = thread.at.team->size;
  begin = share.next.load(std::memory_order_relaxed);
  do {
    if (begin >= count) return false;
    const std::uint64_t left = count - begin;
    std::uint64_t size = std::max(left / members + (left % members != 0 ? 1 : 0), share.chunk);
    // With a doacross loop a chunk of the program's size has one owner.
    if (share.doacross != nullptr) size -= size % share.chunk;
    end = begin + std::min(left, size);
  } while (!share.next.compare_exchange_weak(begin, end, std::memory_order_relaxed));
  return true;
}

}  // namespace

bool enter_share(Thread& thread) {
  Position& at = thread.at;
  Team& team = *at.team;
  const std::uint32_t construct = at.shares_met++;
  WorkShare& share = team.shares[construct % kShareSlots];
  at.share = &share;
  at.trip = 0;
  std::uint32_t state = share.state.load(std::memory_order_acquire);
  if (state != claimed(construct) && state != complete(construct)) {
    wait_until_free(share, state);
    if (share.state.compare_exchange_strong(state, claimed(construct), std::memory_order_seq_cst)) {
      share.users.store(team.size + 1, std::memory_order_relaxed);
      return true;
    }
  }
  const auto ready = [&] {
    return share.state.load(std::memory_order_seq_cst) == complete(construct);
  };
  if (!ready()) share.changed.wait(ready);
  return false;
}

void described(Thread& thread) {
  WorkShare& share = *thread.at.share;
  share.state.store(complete(thread.at.shares_met - 1), std::memory_order_seq_cst);
  share.changed.wake_all();
}

void leave_share(Thread& thread) {
  WorkShare* share = thread.at.share;
  if (share == nullptr) return;
  if (share->distant) return distant::leave_share(thread);
  thread.at.share = nullptr;
  if (share->users.fetch_sub(1, std::memory_order_acq_rel) != 2) return;
  free_doacross(thread, *share);
  if (share->scratch != nullptr) {
    thread.blocks.free(Side::program, share->scratch, share->scratch_bytes);
    share->scratch = nullptr;
  }
  share->users.store(0, std::memory_order_seq_cst);
  share->changed.wake_all();
}

WorkShare& claim_first_share(Team& team) {
  if (team.distant) {  // begin_region tells the members
    team.first_claimed = true;
    return team.shares[0];
  }
  WorkShare& share = team.shares[team.first_share % kShareSlots];
  share.users.store(team.size + 1, std::memory_order_relaxed);
  share.state.store(complete(team.first_share), std::memory_order_relaxed);
  team.first_claimed = true;
  return share;
}

void describe_loop(WorkShare& share, const Iterations& iterations, Schedule schedule,
                   std::uint64_t chunk) {
  share.schedule = schedule;
  share.iterations = iterations;
  share.chunk = chunk;
  share.ordered = false;
  share.reductions = nullptr;
  share.next.store(0, std::memory_order_relaxed);
}

bool next_chunk(Thread& thread, std::uint64_t& begin, std::uint64_t& end) {
  WorkShare& share = *thread.at.share;
  bool some = false;
  switch (share.schedule) {
    case Schedule::dynamic:
      some = share.distant ? next_distant_chunk(thread, share, begin, end)
                           : next_dynamic_chunk(share, begin, end);
      break;
    case Schedule::guided:
      some = share.distant ? next_distant_chunk(thread, share, begin, end)
                           : next_guided(thread, share, begin, end);
      break;
    default:
      some = next_fixed(thread, share, begin, end);
      break;
  }
  if (some) {
    thread.at.chunk_begin = begin;
    thread.at.chunk_end = end;
  } else {
    thread.at.chunk_begin = thread.at.chunk_end = 0;
  }
  return some;
}

void wait_for_turn(Thread& thread) {
  WorkShare* share = thread.at.share;
  if (share == nullptr || !share->ordered || thread.at.team->size == 1) return;
  const std::uint64_t begin = thread.at.chunk_begin;
  if (share->distant) return distant::wait_for_turn(thread, begin);
  const auto my_turn = [&] { return share->turn.load(std::memory_order_seq_cst) == begin; };
  if (!my_turn()) share->changed.wait(my_turn);
}

void hand_on_turn(Thread& thread) {
  if (thread.at.chunk_begin == thread.at.chunk_end) return;
  wait_for_turn(thread);
  WorkShare& share = *thread.at.share;
  if (share.distant) return distant::hand_on_turn(thread, thread.at.chunk_end);
  share.turn.store(thread.at.chunk_end, std::memory_order_seq_cst);
  share.changed.wake_all();
}

}  // namespace krg::omp
