// SPDX-License-Identifier: GPL-2.0-or-later
#include "team.h"

#include <algorithm>

#include "distant.h"

namespace krg::omp {
namespace {

constexpr std::uint64_t members_of(std::uint64_t arrived) {
  return arrived & 0xffffffffU;
}
constexpr std::uint64_t next_generation(std::uint64_t arrived) {
  return ((arrived >> 32) + 1) << 32;
}

// Ends one generation of a barrier when all members have arrived: whoever succeeds is the one who
// does it.
bool complete(Barrier& barrier, unsigned size) {
  std::uint64_t arrived = barrier.arrived.load(std::memory_order_seq_cst);
  return members_of(arrived) == size &&
         barrier.arrived.compare_exchange_strong(arrived, next_generation(arrived),
                                                 std::memory_order_seq_cst);
}

void start_generation(Barrier& barrier) {
  barrier.generation.store(std::uint32_t(barrier.arrived.load(std::memory_order_relaxed) >> 32),
                           std::memory_order_seq_cst);
}

// All members have arrived at a barrier: whoever notices it first ends it.
void release_inner(Team& team) {
  if (!complete(team.inner, team.size)) return;
  if (team.share_cancelled.load(std::memory_order_relaxed)) team.share_cancelled.store(false);
  start_generation(team.inner);
  team.idle.wake_all();
}

void release_end(Team& team) {
  if (!complete(team.end, team.size)) return;
  start_generation(team.end);
  team.master_idle.wake_all();
}

// True when the caller is the last and no task is left.
bool arrive(Team& team, Barrier& barrier) {
  const std::uint64_t arrived = barrier.arrived.fetch_add(1, std::memory_order_seq_cst) + 1;
  return members_of(arrived) == team.size &&
         team.tasks.unfinished.load(std::memory_order_seq_cst) == 0;
}

bool has_queued(const Team& team) {
  return !team.tasks.queued.empty();
}

// After a cancelled region members have met different work shares, and may have left a barrier
// before it was complete.
void clear_after_cancellation(Team& team) {
  team.cancelled.store(false, std::memory_order_relaxed);
  team.share_cancelled.store(false, std::memory_order_relaxed);
  if (team.distant) return;
  team.inner.arrived.store(std::uint64_t(team.inner.generation.load(std::memory_order_relaxed))
                               << 32,
                           std::memory_order_relaxed);
  for (WorkShare& share : team.shares) {
    free_doacross(this_thread(), share);
    share.state.store(0, std::memory_order_relaxed);
    share.users.store(0, std::memory_order_relaxed);
  }
  team.first_single = team.singles.load(std::memory_order_relaxed);
}

// Adds `wanted` - 1 threads to the contention group, as far as its limit allows.
unsigned reserve(std::atomic<unsigned>& contention, unsigned wanted, unsigned limit) {
  unsigned busy = contention.load(std::memory_order_relaxed);
  for (;;) {
    const unsigned left = limit > busy + 1 ? limit - busy - 1 : 0;
    const unsigned more = std::min(wanted - 1, left);
    if (contention.compare_exchange_weak(busy, busy + more)) return more + 1;
  }
}

}  // namespace

unsigned team_size(unsigned asked, unsigned sections) {
  const Position& at = this_thread().at;
  const Icvs& icvs = at.task->icvs;
  if (asked == 1 || at.team->active_level >= icvs.max_active_levels) return 1;
  unsigned wanted = asked != 0 ? asked : icvs.threads;
  if (icvs.dynamic) {
    wanted = std::min(wanted, usable_processors());
    if (sections != 0) wanted = std::min(wanted, sections);
  }
  if (wanted <= 1) return 1;
  return icvs.thread_limit == UINT_MAX ? wanted
                                       : reserve(*at.team->contention, wanted, icvs.thread_limit);
}

Team& start_team(unsigned size, unsigned flags) {
  Thread& thread = this_thread();
  const bool distant = size > 1 && distant::begins();
  Pool& pool = take_pool(thread);
  Team& team = pool.team;
  const Team& outer = *thread.at.team;
  const Icvs& parent = thread.at.task->icvs;
  team.outer = thread.at;
  team.first_claimed = false;
  put_if_new(team.size, size);
  put_if_new(team.distant, distant);
  put_if_new(team.level, outer.level + 1);
  put_if_new(team.active_level, outer.active_level + (size > 1 ? 1 : 0));
  put_if_new(team.serial, false);
  put_if_new<Task*>(team.outer_task, thread.at.task);
  put_if_new<TaskGroup*>(team.group, nullptr);
  put_if_new(team.contention, outer.contention);
  put_if_new(team.teams, outer.teams);
  put_if_new(team.team_number, outer.team_number);
  put_if_new(team.icvs, icvs_at_level(parent, team.level));
  if (team.cancelled_share.load(std::memory_order_relaxed) != 0) team.cancelled_share.store(0);
  if (size > 1 && !distant) spinning.threads.fetch_add(size - 1, std::memory_order_relaxed);
  prepare_members(pool, size);
  const Bind bind = (flags & 7) != 0 && parent.bind != Bind::no ? Bind(flags & 7) : parent.bind;
  put_if_new(team.binds, bind != Bind::no);
  if (team.binds) place_members(thread, team, bind);
  return team;
}

void become_member(Thread& thread, Team& team, unsigned number) {
  Position& at = thread.at;
  at.team = &team;
  at.task = &member_of(team, number).task;
  at.share = nullptr;
  at.number = number;
  at.shares_met = team.first_share;
  at.singles_met = team.first_single;
  at.trip = 0;
  thread.short_tasks.pause();
  if (!team.distant && team.first_claimed) {
    at.share = &team.shares[at.shares_met % kShareSlots];
    ++at.shares_met;
  }
  at.tasks = team.distant ? &member_of(team, number).tasks : &team.tasks;
  begin_implicit_task(thread, *at.task, team);
  if (team.distant) distant::begin_tasks(thread, team);
  if (team.binds) bind_member(thread, team, number);
  if (settings.display_affinity && team.level != 0) show_member(thread);
}

void run_team(Team& team, Function function, void* data) {
  if (team.distant) return distant::begin_region(this_thread(), team, function, data);
  Pool& pool = *team.pool;
  team.function = function;
  team.data = data;
  become_member(this_thread(), team, 0);
  if (team.size == 1) return;
  const std::uint64_t round = pool.dock.load(std::memory_order_relaxed);
  pool.dock.store(next_generation(round) | team.size, std::memory_order_seq_cst);
  team.idle.wake_all();
  if (team.size > members_of(round)) pool.excess.wake_all();
}

void end_team() {
  Thread& thread = this_thread();
  Team& team = *thread.at.team;
  if (team.distant) {
    distant::end_region(thread, team);
  } else {
    wait_at_end(thread, team);
    team.first_share = thread.at.shares_met;
    team.first_single = thread.at.singles_met;
  }
  if (team.cancelled.load(std::memory_order_relaxed)) clear_after_cancellation(team);
  thread.at = team.outer;
  if (team.size > 1) {
    if (!team.distant) spinning.threads.fetch_sub(team.size - 1, std::memory_order_relaxed);
    if (thread.at.task->icvs.thread_limit != UINT_MAX) team.contention->fetch_sub(team.size - 1);
  }
  give_pool(thread, *team.pool);
}

bool wait_at_barrier(Thread& thread, bool cancellable, const void* site) {
  Team& team = *thread.at.team;
  if (team.distant) return distant::barrier(thread, cancellable, site);
  const auto cancelled = [&] {
    return cancellable && team.cancelled.load(std::memory_order_seq_cst);
  };
  if (cancelled()) return true;
  thread.short_tasks.pause();
  const std::uint32_t generation = team.inner.generation.load(std::memory_order_relaxed);
  const std::uint32_t end = team.end.generation.load(std::memory_order_relaxed);
  if (arrive(team, team.inner)) release_inner(team);
  const auto over = [&] {
    return team.inner.generation.load(std::memory_order_acquire) != generation;
  };
  for (;;) {
    team.idle.wait([&] { return over() || cancelled() || has_queued(team); }, &team.asleep);
    if (over()) return false;
    if (cancelled()) return true;
    run_any_tasks(thread, team, end);
  }
}

void wait_at_end(Thread& thread, Team& team) {
  const std::uint32_t generation = team.end.generation.load(std::memory_order_relaxed);
  if (arrive(team, team.end)) release_end(team);
  const auto over = [&] {
    return team.end.generation.load(std::memory_order_acquire) != generation;
  };
  for (;;) {
    team.master_idle.wait([&] { return over() || has_queued(team); }, &team.asleep);
    if (over()) return;
    run_any_tasks(thread, team, generation);
  }
}

std::uint64_t wait_for_next_region(Thread& thread, Pool& pool, std::uint64_t round) {
  Team& team = pool.team;
  const std::uint32_t generation = team.end.generation.load(std::memory_order_relaxed);
  if (arrive(team, team.end)) release_end(team);
  std::uint64_t state = round;
  const auto begun = [&] {
    state = pool.dock.load(std::memory_order_acquire);
    return state != round;
  };
  for (;;) {
    team.idle.wait(
        [&] {
          return begun() || (has_queued(team) &&
                             team.end.generation.load(std::memory_order_acquire) == generation);
        },
        &team.asleep);
    if (begun()) return state;
    run_any_tasks(thread, team, generation);
  }
}

void release_barriers(Team& team) {
  if (team.distant) return;  // who waits for its own tasks looks itself
  release_inner(team);
  release_end(team);
}

void cancel_region(Team& team) {
  team.cancelled.store(true, std::memory_order_seq_cst);
  if (team.distant) return distant::cancel(this_thread());
  team.idle.wake_all();
}

}  // namespace krg::omp
