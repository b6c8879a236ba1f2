// What OMP_* (and the GOMP_* that libgomp reads) in the environment say: read once, before the
// program's main, then never changed but for the few that omp_set_* calls change for the whole
// device.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <climits>
#include <cstddef>

#include "abi.h"

namespace krg::omp {

// Internal control variables of a task's data environment.
struct Icvs {
  unsigned threads = 1;
  unsigned schedule = unsigned(Schedule::dynamic);  // Schedule, perhaps with kMonotonic
  int chunk = 1;
  unsigned thread_limit = UINT_MAX;
  int default_device = 0;
  unsigned char max_active_levels = 1;
  bool dynamic = false;
  Bind bind = Bind::no;

  bool operator==(const Icvs&) const = default;
};

inline constexpr unsigned kSupportedActiveLevels = 255;
inline constexpr unsigned kMostLevels = 16;  // of the lists in OMP_NUM_THREADS and OMP_PROC_BIND
enum class WaitPolicy : unsigned char { unsaid, active, passive };
enum class Offload : unsigned char { default_, mandatory, disabled };

struct Settings {
  Icvs initial;
  unsigned threads_at[kMostLevels] = {};  // OMP_NUM_THREADS for nested levels
  unsigned thread_levels = 0;
  Bind bind_at[kMostLevels] = {};
  unsigned bind_levels = 0;
  std::size_t stack_bytes = 0;  // 0: the system's
  WaitPolicy wait_policy = WaitPolicy::unsaid;
  bool cancellation = false;
  int max_task_priority = 0;
  unsigned teams = 0;  // OMP_NUM_TEAMS
  unsigned teams_thread_limit = 0;
  Offload offload = Offload::default_;
  std::size_t default_allocator = 1;
  bool display_affinity = false;
  char affinity_format[256] = "level %L thread %i affinity %A";
};
extern Settings settings;

// What an implicit task of a team at `level` has, its parent having `parent`.
Icvs icvs_at_level(const Icvs& parent, unsigned level);

// The processors that this thread may use now; in a session those of all nodes.
unsigned usable_processors();

// The predefined allocators, from 1 on.
inline constexpr std::size_t kAllocators = 8;
const char* allocator_name(std::size_t allocator);

void read_environment();
void display_environment(bool verbose);

// A schedule's chunk as omp_set_schedule and OMP_SCHEDULE take it.
void set_schedule(Icvs& icvs, unsigned schedule, int chunk);

}  // namespace krg::omp
