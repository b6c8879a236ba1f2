// Teams whose members are on several nodes. The process's memory is one coherent memory then, whose
// pages move from node to node; what members tell each other therefore goes by team calls
// (team_call.h) to krgd and not by memory, and what one member writes lies in pages of its own.
// Everything here works wherever the calling thread is, and if it moves meanwhile.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <atomic>
#include <cstdint>

#include "krg/procmgr/team_call.h"
#include "loops.h"
#include "team.h"

namespace krg::omp::distant {

enum class State : std::uint8_t { unasked, on, off };
extern std::atomic<State> state;

// Whether the process's threads run on several nodes. Asks for it at the first call in a process
// that krgrun started for it (KRG_OMP_NODES); then it stays as it is. `is_on` does not ask.
bool begins();
// For good: krgrun did not start the process for several nodes, or krgd could not spread it.
inline bool is_off() {
  return state.load(std::memory_order_relaxed) == State::off;
}
inline bool is_on() {
  return state.load(std::memory_order_seq_cst) == State::on;
}
// How many nodes krgrun started the process for; 1: it did not.
unsigned nodes();

// The master describes a region, whose workers begin with it, and waits for its end.
void begin_region(Thread& master, Team& team, Function function, void* data);
void end_region(Thread& master, Team& team);
// A worker's life: regions, until the pool is dropped.
void work(Thread& thread, Pool& pool);
void dismiss(Thread& thread, Pool& pool);

// As wait_at_barrier. `word`: not 0 from one member; all get it in `told`.
bool barrier(Thread& thread, bool cancellable, const void* site, std::uint64_t word = 0,
             std::uint64_t* told = nullptr);
void cancel(Thread& thread);
bool single(Thread& thread);

void enter_loop(Thread& thread, const Iterations& iterations, Plan plan, const LoopExtras& extras);
void leave_share(Thread& thread);
void wait_for_turn(Thread& thread, std::uint64_t begin);
void hand_on_turn(Thread& thread, std::uint64_t end);
void post(Thread& thread, std::uint64_t counter, std::uint64_t value);
void await(Thread& thread, std::uint64_t counter, std::uint64_t value);

// Tasks (distant_tasks.cpp). A member at the start of a region; and before it waits for the others:
// runs what it has queued, and waits until all that it has given away is over.
void begin_tasks(Thread& thread, Team& team);
void finish_tasks(Thread& thread);
// When a call was answered by a task. `words`: of the answer.
bool run_if_task(Thread& thread, long result, const std::uint64_t* words);
// Gives tasks that the calling member has queued to others, as far as that is likely to be of use.
// Returns the time, as now_ns().
std::uint64_t give_tasks(Thread& thread);
// One of its own has run since then.
void note_task(Thread& thread, std::uint64_t began_ns);
// Until there is a task of those for it, which it runs, or news of what it has given away.
void wait_for_task(Thread& thread, std::uint64_t what, const void* of);
// A group that stands for another member's has ended, or something in it (team_call.h: news).
void end_given(Thread& thread, TaskGroup& group, std::uint64_t parts);
void fulfill(const Task& task);

// Locks by their address. `owner`: of those that it may take several times, else null. A result is
// how many times it has it.
std::uint64_t lock(const void* key, const void* owner = nullptr);
std::uint64_t try_lock(const void* key, const void* owner = nullptr);
void unlock(const void* key);

}  // namespace krg::omp::distant
