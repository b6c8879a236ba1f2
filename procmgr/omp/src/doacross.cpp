// ordered(n) with depend(source) and depend(sink): iterations of a loop nest that wait for others
// by their index vectors. An index vector is numbered in the order of the sequential loop. Chunks
// of the outermost loop have one owner each, which posts in that order, so one counter per chunk
// tells all: 1 + the number that was posted last.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <cstdarg>
#include <cstring>
#include <new>

#include "distant.h"
#include "loops.h"

namespace krg::omp {

struct Doacross {
  struct alignas(64) Posted {
    std::atomic<std::uint64_t> number{0};
  };
  unsigned dimensions = 0;
  std::uint64_t chunk =
      1;  // iterations of the outermost loop per counter; 0: members' blocks of a static schedule
  std::uint64_t each = 0, more = 0;  // then: the first `more` blocks have `each` + 1 iterations
  std::uint64_t counters = 0;
  std::size_t bytes = 0;
  EventCount posted;
  std::uint64_t* counts = nullptr;
  Posted* entries = nullptr;

  [[nodiscard]] std::uint64_t counter_of(std::uint64_t outermost) const {
    if (chunk != 0) return outermost / chunk;
    const std::uint64_t longer = more * (each + 1);
    return outermost < longer ? outermost / (each + 1) : more + (outermost - longer) / each;
  }
};

namespace {

// The doacross loop that the caller is in, null when nobody else is.
Doacross* here(Thread& thread) {
  const WorkShare* share = thread.at.share;
  return share != nullptr && thread.at.team->size > 1 ? share->doacross : nullptr;
}

void post(const std::uint64_t* indices) {
  Thread& thread = this_thread();
  Doacross* loop = here(thread);
  if (loop == nullptr) return;
  std::uint64_t number = indices[0];
  for (unsigned i = 1; i < loop->dimensions; ++i) number = number * loop->counts[i] + indices[i];
  if (thread.at.team->distant)
    return distant::post(thread, loop->counter_of(indices[0]), number + 1);
  loop->entries[loop->counter_of(indices[0])].number.store(number + 1, std::memory_order_seq_cst);
  loop->posted.wake_all();
}

template <class T>
void wait(T outermost, std::va_list others) {
  Thread& thread = this_thread();
  Doacross* loop = here(thread);
  if (loop == nullptr) return;
  auto number = std::uint64_t(outermost);
  for (unsigned i = 1; i < loop->dimensions; ++i)
    number = number * loop->counts[i] + std::uint64_t(va_arg(others, T));
  if (thread.at.team->distant)
    return distant::await(thread, loop->counter_of(std::uint64_t(outermost)), number + 1);
  const std::atomic<std::uint64_t>& entry =
      loop->entries[loop->counter_of(std::uint64_t(outermost))].number;
  const auto posted = [&] { return entry.load(std::memory_order_seq_cst) > number; };
  if (!posted()) loop->posted.wait(posted);
}

bool start(unsigned dimensions, const std::uint64_t* counts, unsigned sched, std::uint64_t chunk,
           std::uint64_t& begin, std::uint64_t& end, ReductionArray reductions = nullptr,
           void** scratch = nullptr) {
  enter_loop(
      range(true, 0, counts[0], 1), plan_of(sched, chunk),
      {.reductions = reductions, .scratch = scratch, .dimensions = dimensions, .counts = counts});
  return next_chunk(this_thread(), begin, end);
}

template <class T>
bool start(unsigned dimensions, const T* counts, Schedule sched, T chunk, T* first, T* last) {
  static_assert(sizeof(T) == sizeof(std::uint64_t));
  std::uint64_t begin = 0, end = 0;
  const bool some = start(dimensions, reinterpret_cast<const std::uint64_t*>(counts),
                          unsigned(sched), std::uint64_t(chunk), begin, end);
  *first = T(begin);
  *last = T(end);
  return some;
}

}  // namespace

void describe_doacross(Thread& thread, WorkShare& share, unsigned dimensions,
                       const std::uint64_t* counts) {
  if (thread.at.team->size == 1) return;
  const std::uint64_t members = thread.at.team->size;
  const bool blocks = share.schedule == Schedule::fixed && share.chunk == 0;
  const bool distant = thread.at.team->distant;  // then posted numbers are told by calls
  const std::uint64_t counters =
      distant ? 0 : (blocks ? members : share.iterations.count / share.chunk + 1);
  const std::size_t bytes = sizeof(Doacross) + 64 + dimensions * sizeof(std::uint64_t) + 64 +
                            counters * sizeof(Doacross::Posted);
  void* memory = thread.blocks.allocate(Side::node, bytes);
  std::memset(memory, 0, bytes);
  auto* loop = new (memory) Doacross;
  const auto align = [](void* after) {
    return reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(after) + 63) &
                                   ~std::uintptr_t(63));
  };
  loop->dimensions = dimensions;
  loop->chunk = blocks ? 0 : share.chunk;
  loop->each = share.iterations.count / members;
  loop->more = share.iterations.count % members;
  loop->counters = counters;
  loop->bytes = bytes;
  loop->counts = static_cast<std::uint64_t*>(align(loop + 1));
  std::memcpy(loop->counts, counts, dimensions * sizeof(std::uint64_t));
  loop->entries = static_cast<Doacross::Posted*>(align(loop->counts + dimensions));
  share.doacross = loop;
}

void free_doacross(Thread& thread, WorkShare& share) {
  if (share.doacross == nullptr) return;
  thread.blocks.free(Side::node, share.doacross, share.doacross->bytes);
  share.doacross = nullptr;
}

}  // namespace krg::omp

using namespace krg::omp;
using Ull = unsigned long long;
#pragma GCC visibility push(default)
extern "C" {

bool GOMP_loop_doacross_static_start(unsigned n, long* counts, long chunk, long* first,
                                     long* last) {
  return start(n, counts, Schedule::fixed, chunk, first, last);
}
bool GOMP_loop_doacross_dynamic_start(unsigned n, long* counts, long chunk, long* first,
                                      long* last) {
  return start(n, counts, Schedule::dynamic, chunk, first, last);
}
bool GOMP_loop_doacross_guided_start(unsigned n, long* counts, long chunk, long* first,
                                     long* last) {
  return start(n, counts, Schedule::guided, chunk, first, last);
}
bool GOMP_loop_doacross_runtime_start(unsigned n, long* counts, long* first, long* last) {
  return start(n, counts, Schedule::run_time, 0L, first, last);
}
bool GOMP_loop_doacross_start(unsigned n, long* counts, long sched, long chunk, long* first,
                              long* last, ReductionArray reductions, void** scratch) {
  std::uint64_t begin = 0, end = 0;
  const bool some = start(n, reinterpret_cast<std::uint64_t*>(counts), unsigned(sched),
                          std::uint64_t(chunk), begin, end, reductions, scratch);
  *first = long(begin);
  *last = long(end);
  return some;
}

bool GOMP_loop_ull_doacross_static_start(unsigned n, Ull* counts, Ull chunk, Ull* first,
                                         Ull* last) {
  return start(n, counts, Schedule::fixed, chunk, first, last);
}
bool GOMP_loop_ull_doacross_dynamic_start(unsigned n, Ull* counts, Ull chunk, Ull* first,
                                          Ull* last) {
  return start(n, counts, Schedule::dynamic, chunk, first, last);
}
bool GOMP_loop_ull_doacross_guided_start(unsigned n, Ull* counts, Ull chunk, Ull* first,
                                         Ull* last) {
  return start(n, counts, Schedule::guided, chunk, first, last);
}
bool GOMP_loop_ull_doacross_runtime_start(unsigned n, Ull* counts, Ull* first, Ull* last) {
  return start(n, counts, Schedule::run_time, Ull(0), first, last);
}
bool GOMP_loop_ull_doacross_start(unsigned n, Ull* counts, long sched, Ull chunk, Ull* first,
                                  Ull* last, ReductionArray reductions, void** scratch) {
  std::uint64_t begin = 0, end = 0;
  const bool some = start(n, reinterpret_cast<std::uint64_t*>(counts), unsigned(sched), chunk,
                          begin, end, reductions, scratch);
  *first = begin;
  *last = end;
  return some;
}

void GOMP_doacross_post(long* indices) {
  post(reinterpret_cast<const std::uint64_t*>(indices));
}
void GOMP_doacross_ull_post(Ull* indices) {
  post(reinterpret_cast<const std::uint64_t*>(indices));
}
void GOMP_doacross_wait(long outermost, ...) {
  std::va_list others;
  va_start(others, outermost);
  wait(outermost, others);
  va_end(others);
}
void GOMP_doacross_ull_wait(Ull outermost, ...) {
  std::va_list others;
  va_start(others, outermost);
  wait(outermost, others);
  va_end(others);
}
}
