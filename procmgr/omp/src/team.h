// Threads and teams. A *pool* belongs to the thread that forks with it (the master of its team) and
// keeps its threads from one parallel region to the next; a thread that forks inside a region uses
// another pool, so each thread has a stack of idle ones. The team is a part of the pool: its memory
// stays, so that a thread which learns late that a region has ended reads valid memory. Everything
// here lies in node memory (memory.h).
//
//   fork    the master describes the region in the team and publishes (round, size) in the pool's
//   dock join    every member arrives at the region's end; there members run tasks until none is
//   left; the master goes on when all
//           have arrived, the others wait for the dock's next round without being woken in between
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <atomic>
#include <cstdint>

#include "memory.h"
#include "settings.h"
#include "short_tasks.h"
#include "task.h"
#include "waiting.h"
#include "work_share.h"

namespace krg::omp {

struct Pool;
struct Team;

// A part of the place list; count 0: the thread is not bound.
struct Places {
  unsigned first = 0;
  unsigned count = 0;

  bool operator==(const Places&) const = default;
};

// Where a thread stands: what changes when it becomes the master of a nested team, and comes back
// when that ends.
struct Position {
  Team* team = nullptr;
  Task* task = nullptr;
  TaskQueue* tasks = nullptr;      // where it queues them
  WorkShare* share = nullptr;      // the one between its start and its end
  unsigned number = 0;             // in the team
  std::uint32_t shares_met = 0;    // work shares that this thread has come to
  std::uint32_t share_number = 0;  // of `share`, in a distant team
  std::uint32_t singles_met = 0;
  std::uint64_t trip = 0;         // chunks taken of a static schedule
  std::uint64_t chunk_begin = 0;  // iterations of the chunk at hand
  std::uint64_t chunk_end = 0;
  Places partition;
};

// When a member of a distant team gives tasks away (distant_tasks.cpp).
struct Giving {
  std::uint64_t next_ns = 0;   // not before
  std::uint64_t pause_ns = 0;  // after there were enough
  std::uint64_t seen_ns = 0;
  unsigned left_free = 0;      // so many without regard to time
  std::int64_t credit_ns = 0;  // time that it may take
  std::uint64_t cost_ns = 0;   // of one, on the average
  std::uint64_t task_ns = 0;   // of a task that it ran itself, on the average
};

struct alignas(64) Thread {
  Position at;
  BlockCache blocks;
  Task* spare_tasks = nullptr;  // ended, linked by `parent`, as new but for what new_task sets
  unsigned spare_task_count = 0;
  ShortTasks short_tasks;
  Pool* idle_pools = nullptr;
  Pool* base_pool = nullptr;     // its team is the one outside of every parallel region
  unsigned place = 0;            // where it is bound: 1 + number of the place, 0: nowhere
  std::uint64_t team_calls = 0;  // that it has made (distant.h)
  Giving giving;
  const Team* shown = nullptr;  // OMP_DISPLAY_AFFINITY: where, with how many others and
  unsigned shown_size = 0;      // bound to what it was shown last
  unsigned shown_place = 0;
};

// Once, before any other call.
void prepare_process();

// The calling thread; made at its first call.
extern constinit thread_local Thread* current_thread;
Thread& adopt_thread();
inline Thread& this_thread() {
  Thread* thread = current_thread;
  return __builtin_expect(thread != nullptr, 1) ? *thread : adopt_thread();
}

// Every member arrives; whoever completes it starts the next generation.
struct Barrier {
  alignas(64) std::atomic<std::uint64_t> arrived{0};  // generation << 32 | members
  alignas(64) std::atomic<std::uint32_t> generation{0};
};

// Pages, since members of a distant team read on other nodes what the master writes here: what they
// read in each region is written only where it changes (put_if_new).
inline constexpr std::size_t kTeamPage = 4096;

struct alignas(kTeamPage) Team {
  unsigned size = 1;  // all members
  unsigned level = 0;
  unsigned active_level = 0;
  unsigned team_number = 0;  // in the league (teams construct)
  unsigned teams = 1;
  bool serial = false;   // outside of every region: tasks are carried out where they are met
  bool distant = false;  // members may be on several nodes (distant.h)
  bool binds = false;
  std::uint32_t first_share = 0;  // where members begin to count
  std::uint32_t first_single = 0;
  Icvs icvs;                   // of the implicit tasks
  Task* outer_task = nullptr;  // the master's
  Pool* pool = nullptr;
  TaskGroup* group = nullptr;  // of all implicit tasks (parallel reductions)
  char* members = nullptr;     // what each has, `member_bytes` apart
  std::size_t member_bytes = 0;
  Places* partitions = nullptr;  // of each member and where it is bound, when the region binds
  unsigned* bound = nullptr;
  std::atomic<unsigned>* contention = nullptr;  // threads of the contention group besides its first
  alignas(64) std::atomic<bool> cancelled{false};
  std::atomic<bool> share_cancelled{false};
  std::atomic<std::uint32_t> cancelled_share{0};  // distant: the construct, from 1 on
  // Threads that would run tasks if there were any; those that still look for one do not count.
  // Always 0 in a distant team.
  std::atomic<unsigned> asleep{0};

  // Nobody but the master uses these in a distant team.
  alignas(kTeamPage) Function function = nullptr;
  void* data = nullptr;
  Position outer;              // of the master
  bool first_claimed = false;  // the first work share was described before the region began
  void* copy_private = nullptr;
  Barrier inner;  // GOMP_barrier
  Barrier end;    // of the region
  alignas(64) std::atomic<std::uint32_t> singles{0};
  WorkShare shares[kShareSlots];

  alignas(kTeamPage) EventCount
      idle;  // who can run any task: members at barriers and, between regions, the pool's threads
  EventCount master_idle;  // the master at the region's end
  TaskQueue tasks;
};

template <class T>
void put_if_new(T& place, const T& value) {
  if (!(place == value)) place = value;
}

// What a member has in a team; in a distant one a page of its own.
struct Member {
  Task task;
  // In a distant team.
  WorkShare share;
  TaskQueue tasks;
  TaskGroup group;  // stands for the team's
};
static_assert(sizeof(Member) <= kTeamPage);
inline Member& member_of(const Team& team, unsigned number) {
  return *reinterpret_cast<Member*>(team.members + number * team.member_bytes);
}
inline WorkShare& member_share(const Team& team, unsigned number) {
  return member_of(team, number).share;
}

struct Pool {
  // round << 32 | size of the team; kLeave as the size ends the threads.
  alignas(64) std::atomic<std::uint64_t> dock{0};
  EventCount excess;  // threads that the present region has no use for
  Pool* next_idle = nullptr;
  unsigned workers = 0;
  unsigned room = 0;                    // members that the team has memory for
  std::atomic<unsigned> contention{0};  // of the group whose first thread has this as its base pool
  std::atomic<unsigned> leaving{0};
  Team team;
};
inline constexpr std::uint32_t kLeave = UINT32_MAX;

// How many threads a parallel region gets. `asked` 0: unsaid. `sections` 0: not a parallel
// sections.
unsigned team_size(unsigned asked, unsigned sections);

// A region's start and end, on the master. `flags`: its proc_bind clause. Between both the master
// is member 0.
Team& start_team(unsigned size,
                 unsigned flags);  // describe; then perhaps prepare its first work share
void run_team(Team& team, Function function, void* data);
void end_team();

// `function` by every member; `prepare` is called on the master before the others start.
template <class Prepare>
void parallel(Function function, void* data, unsigned size, unsigned flags,
              const Prepare& prepare) {
  Team& team = start_team(size, flags);
  prepare(team);
  run_team(team, function, data);
  function(data);
  end_team();
}

// Barrier among the members; true when the region was cancelled (only told when `cancellable`).
// `site`: where the program comes from, by which krgd knows again what comes behind the barrier.
bool wait_at_barrier(Thread& thread, bool cancellable, const void* site);
// The end of a region, for its master; for another member, who gets the dock's next state.
void wait_at_end(Thread& thread, Team& team);
std::uint64_t wait_for_next_region(Thread& thread, Pool& pool, std::uint64_t round);
// Ends the barriers that only wait for tasks, when there is none any more. Under the mutex of the
// team's tasks.
void release_barriers(Team& team);
void cancel_region(Team& team);

// A pool's threads end and its memory is kept for another one. The calling thread's idle pools
// only.
void drop_idle_pools(Thread& thread);

// A pool for a region that `thread` is about to start, and its return.
Pool& take_pool(Thread& thread);
void give_pool(Thread& thread, Pool& pool);
// Memory and threads for a team of `size`.
void prepare_members(Pool& pool, unsigned size);
// Makes `thread` the only member of a team outside of every region: its first, or the one of a
// target region.
void enter_serial_team(Thread& thread, Pool& pool, const Icvs& icvs);
void become_member(Thread& thread, Team& team, unsigned number);

// places.cpp: which place each member gets; binds the calling member.
void place_members(Thread& master, Team& team, Bind bind);
void bind_member(Thread& thread, Team& team, unsigned number);
void bind_thread(Thread& thread);  // where it is placed
void show_member(Thread& thread);

}  // namespace krg::omp
