// Places: the sets of processors that OMP_PLACES names, in its order. Fixed after the environment
// has been read.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <sched.h>

#include <cstddef>

namespace krg::omp {

struct Thread;

// Processors above CPU_SETSIZE belong to no place.
struct PlaceList {
  cpu_set_t* sets = nullptr;
  unsigned count = 0;
};
extern PlaceList places;

// OMP_PLACES, else (OMP_PROC_BIND asks for binding) GOMP_CPU_AFFINITY or a place for each core;
// binds the calling thread to the first place when threads are to be bound.
void read_places();

// Sets of hwloc objects: "threads", "cores", "sockets", "ll_caches", "numa_domains"; false:
// unknown, or no hwloc here.
bool named_places(const char* name, unsigned most, const cpu_set_t& usable);
void add_place(const cpu_set_t& set);

// The processors of a set as "0-3,8"; what does not fit is left out. Returns the length that all of
// it has.
std::size_t print_processors(const cpu_set_t& set, char* text, std::size_t room);

// The calling thread in the form of OMP_AFFINITY_FORMAT. Returns the length that all of it has.
std::size_t print_affinity(Thread& thread, const char* format, char* text, std::size_t room);
void display_affinity(Thread& thread, const char* format);

}  // namespace krg::omp
