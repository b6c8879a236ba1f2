// Pools: their threads, and threads that the program made itself.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <pthread.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "distant.h"

namespace krg::omp {

constinit thread_local Thread* current_thread = nullptr;

namespace {

// What threads that have ended leave for others.
struct Leftovers {
  Mutex mutex;
  Pool* pools = nullptr;
};
Leftovers leftovers;

// What a pool's thread begins with, in the memory where its Thread will be: its master's to get.
// Were it the thread's own to get, on several nodes each new thread would wait for the page that
// tells what memory is free, and take it from the node of the one before.
struct Worker {
  Pool* pool;
  unsigned number;
  std::uint64_t round;  // the dock's state when it was made
};

// A thread that may run on another node has pages of its own.
std::size_t thread_bytes() {
  static_assert(sizeof(Thread) <= kTeamPage);
  return distant::nodes() > 1 ? kTeamPage : sizeof(Thread);
}

// Of a thread that the program made.
Thread* new_thread() {
  BlockCache blocks;
  void* memory = blocks.allocate(Side::node, thread_bytes());
  auto* thread = new (memory) Thread;
  thread->blocks = blocks;
  return thread;
}

void end_thread(void* memory) {
  auto* thread = static_cast<Thread*>(memory);
  drop_idle_pools(*thread);
  if (thread->base_pool != nullptr) {
    thread->base_pool->team.first_share = thread->at.shares_met;
    thread->base_pool->team.first_single = thread->at.singles_met;
    const Locked locked(leftovers.mutex);
    thread->base_pool->next_idle = leftovers.pools;
    leftovers.pools = thread->base_pool;
  }
  free_spare_tasks(*thread);
  BlockCache blocks = thread->blocks;
  blocks.free(Side::node, thread, thread_bytes());
  blocks.give_back();
  current_thread = nullptr;
}

pthread_key_t end_of_thread;

// Regions on one node, until the pool is dropped.
void work_here(Thread* thread, const Worker& worker) {
  Pool& pool = *worker.pool;
  Team& team = pool.team;
  std::uint64_t state = worker.round;
  team.idle.wait([&] {
    state = pool.dock.load(std::memory_order_acquire);
    return state != worker.round;
  });
  while (std::uint32_t(state) != kLeave) {
    if (worker.number < std::uint32_t(state)) {
      become_member(*thread, team, worker.number);
      team.function(team.data);
      state = wait_for_next_region(*thread, pool, state);
    } else {
      pool.excess.wait([&] {
        state = pool.dock.load(std::memory_order_seq_cst);
        return worker.number < std::uint32_t(state);
      });
    }
  }
}

void* work(void* memory) {
  static_assert(sizeof(Worker) <= sizeof(Thread));
  Worker worker;
  std::memcpy(&worker, memory, sizeof worker);
  auto* thread = new (memory) Thread;
  current_thread = thread;
  Pool& pool = *worker.pool;
  distant::is_on() ? distant::work(*thread, pool) : work_here(thread, worker);
  end_thread(thread);
  pool.leaving.fetch_sub(1, std::memory_order_seq_cst);
  pool.team.master_idle.wake_all();
  return nullptr;
}

void add_worker(Pool& pool, Thread& master) {
  void* memory = master.blocks.allocate(Side::node, thread_bytes());
  const Worker worker{&pool, pool.workers + 1, pool.dock.load(std::memory_order_relaxed)};
  std::memcpy(memory, &worker, sizeof worker);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  if (settings.stack_bytes != 0 &&
      pthread_attr_setstacksize(&attributes, settings.stack_bytes) != 0) {
    static std::atomic<bool> told{false};
    if (!told.exchange(true)) complain("a stack of %zu bytes cannot be had", settings.stack_bytes);
  }
  pthread_t id{};
  const int failed = pthread_create(&id, &attributes, work, memory);
  pthread_attr_destroy(&attributes);
  if (failed != 0) fatal("Thread creation failed: %s", std::strerror(failed));
  ++pool.workers;
}

template <class T>
T* several(unsigned count) {
  T* first = static_cast<T*>(permanent_memory(count * sizeof(T)));
  for (unsigned i = 0; i < count; ++i) new (first + i) T;
  return first;
}

// A child of fork() has none of the workers, and locks that others held at the fork stay held in
// it.
void forget_pools_in_child() {
  spinning.threads.store(1, std::memory_order_relaxed);
  new (&leftovers) Leftovers;
  free_memory_locks();
  if (current_thread != nullptr) current_thread->idle_pools = nullptr;
}

}  // namespace

void prepare_process() {
  if (pthread_key_create(&end_of_thread, end_thread) != 0) fatal("no key for threads' ends");
  pthread_atfork(nullptr, nullptr, forget_pools_in_child);
  if (distant::nodes() == 1) distant::state.store(distant::State::off);
}

Thread& adopt_thread() {
  Thread* thread = new_thread();
  current_thread = thread;
  pthread_setspecific(end_of_thread, thread);
  thread->base_pool = &take_pool(*thread);
  enter_serial_team(*thread, *thread->base_pool, settings.initial);
  return *thread;
}

void enter_serial_team(Thread& thread, Pool& pool, const Icvs& icvs) {
  prepare_members(pool, 1);
  Team& team = pool.team;
  team.outer = thread.at;
  team.outer_task = thread.at.task;
  team.size = 1;
  team.distant = false;
  team.level = 0;
  team.active_level = 0;
  team.teams = 1;
  team.team_number = 0;
  team.serial = true;
  team.first_claimed = false;
  team.group = nullptr;
  team.binds = false;
  team.icvs = icvs;
  team.contention = &pool.contention;
  pool.contention.store(0);
  become_member(thread, team, 0);
}

Pool& take_pool(Thread& thread) {
  if (Pool* pool = thread.idle_pools) {
    thread.idle_pools = pool->next_idle;
    return *pool;
  }
  {
    const Locked locked(leftovers.mutex);
    if (Pool* pool = leftovers.pools) {
      leftovers.pools = pool->next_idle;
      return *pool;
    }
  }
  Pool* pool = new (permanent_memory(sizeof(Pool))) Pool;
  pool->team.pool = pool;
  return *pool;
}

void give_pool(Thread& thread, Pool& pool) {
  pool.next_idle = thread.idle_pools;
  thread.idle_pools = &pool;
}

void prepare_members(Pool& pool, unsigned size) {
  Team& team = pool.team;
  if (size > pool.room) {
    pool.room = std::max(size, 2 * pool.room);
    team.member_bytes = distant::is_on() ? kTeamPage : sizeof(Member);
    team.members = static_cast<char*>(permanent_memory(pool.room * team.member_bytes));
    for (unsigned i = 0; i < pool.room; ++i)
      (new (team.members + i * team.member_bytes) Member)->share.distant = true;
    team.partitions = several<Places>(pool.room);
    team.bound = several<unsigned>(pool.room);
  }
  while (pool.workers + 1 < size) add_worker(pool, this_thread());
}

void drop_idle_pools(Thread& thread) {
  while (Pool* pool = thread.idle_pools) {
    thread.idle_pools = pool->next_idle;
    pool->leaving.store(pool->workers);
    if (pool->workers > 0 && distant::is_on()) distant::dismiss(thread, *pool);
    const std::uint64_t round = pool->dock.load(std::memory_order_relaxed);
    pool->dock.store((((round >> 32) + 1) << 32) | kLeave, std::memory_order_seq_cst);
    pool->team.idle.wake_all();
    pool->excess.wake_all();
    pool->team.master_idle.wait([&] { return pool->leaving.load(std::memory_order_seq_cst) == 0; });
    pool->workers = 0;
    pool->dock.store(((round >> 32) + 2) << 32, std::memory_order_seq_cst);
    const Locked locked(leftovers.mutex);
    pool->next_idle = leftovers.pools;
    leftovers.pools = pool;
  }
}

}  // namespace krg::omp
