// The omp_* functions: control variables, the team, places, devices, time. fortran.cpp has their
// Fortran forms.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "api.h"

#include <time.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "places.h"
#include "team.h"

namespace krg::omp {
namespace {

Icvs& icvs() {
  return this_thread().at.task->icvs;
}

// The position of the calling thread, or of the ancestor that stands for it, at `level`; null:
// there is none.
const Position* position_at(int level) {
  const Position* at = &this_thread().at;
  if (level < 0 || unsigned(level) > at->team->level) return nullptr;
  while (at->team->level > unsigned(level)) at = &at->team->outer;
  return at;
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

void omp_set_num_threads(int threads) {
  icvs().threads = threads > 0 ? unsigned(threads) : 1;
}
int omp_get_num_threads() {
  return int(this_thread().at.team->size);
}
int omp_get_max_threads() {
  return int(icvs().threads);
}
int omp_get_thread_num() {
  return int(this_thread().at.number);
}
int omp_get_num_procs() {
  return places.count != 0 ? int(spinning.processors) : int(usable_processors());
}
int omp_in_parallel() {
  return this_thread().at.team->active_level > 0 ? 1 : 0;
}

void omp_set_dynamic(int value) {
  icvs().dynamic = value != 0;
}
int omp_get_dynamic() {
  return icvs().dynamic ? 1 : 0;
}
void omp_set_nested(int value) {
  unsigned char& levels = icvs().max_active_levels;
  if (value == 0) {
    levels = 1;
  } else if (levels <= 1) {
    levels = kSupportedActiveLevels;
  }
}
int omp_get_nested() {
  return icvs().max_active_levels > std::max(1U, this_thread().at.team->active_level) ? 1 : 0;
}

void omp_set_schedule(unsigned kind, int chunk) {
  set_schedule(icvs(), kind, chunk);
}
void omp_get_schedule(unsigned* kind, int* chunk) {
  *kind = icvs().schedule;
  *chunk = icvs().chunk;
}
int omp_get_thread_limit() {
  return int(std::min<unsigned>(icvs().thread_limit, INT_MAX));
}
void omp_set_max_active_levels(int levels) {
  if (levels >= 0)
    icvs().max_active_levels =
        static_cast<unsigned char>(std::min<int>(levels, kSupportedActiveLevels));
}
int omp_get_max_active_levels() {
  return icvs().max_active_levels;
}
int omp_get_supported_active_levels() {
  return kSupportedActiveLevels;
}
int omp_get_level() {
  return int(this_thread().at.team->level);
}
int omp_get_active_level() {
  return int(this_thread().at.team->active_level);
}
int omp_get_ancestor_thread_num(int level) {
  const Position* at = position_at(level);
  return at != nullptr ? int(at->number) : -1;
}
int omp_get_team_size(int level) {
  const Position* at = position_at(level);
  return at != nullptr ? int(at->team->size) : -1;
}
int omp_in_final() {
  return this_thread().at.task->final ? 1 : 0;
}
int omp_get_cancellation() {
  return settings.cancellation ? 1 : 0;
}
int omp_get_max_task_priority() {
  return settings.max_task_priority;
}

int omp_get_num_teams() {
  return int(this_thread().at.team->teams);
}
int omp_get_team_num() {
  return int(this_thread().at.team->team_number);
}
void omp_set_num_teams(int teams) {
  if (teams >= 0) settings.teams = unsigned(teams);
}
int omp_get_max_teams() {
  return int(settings.teams);
}
void omp_set_teams_thread_limit(int limit) {
  if (limit >= 0) settings.teams_thread_limit = unsigned(limit);
}
int omp_get_teams_thread_limit() {
  return int(settings.teams_thread_limit);
}

int omp_get_proc_bind() {
  return int(icvs().bind);
}
int omp_get_num_places() {
  return int(places.count);
}
int omp_get_place_num() {
  return int(this_thread().place) - 1;
}
int omp_get_place_num_procs(int place) {
  return place >= 0 && unsigned(place) < places.count ? CPU_COUNT(&places.sets[place]) : 0;
}
void omp_get_place_proc_ids(int place, int* processors) {
  if (place < 0 || unsigned(place) >= places.count) return;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(std::size_t(i), &places.sets[place])) *processors++ = i;
  }
}
int omp_get_partition_num_places() {
  return int(this_thread().at.partition.count);
}
void omp_get_partition_place_nums(int* numbers) {
  const Places& part = this_thread().at.partition;
  for (unsigned i = 0; i < part.count; ++i) numbers[i] = int(part.first + i);
}

void omp_set_affinity_format(const char* format) {
  std::strncpy(settings.affinity_format, format, sizeof settings.affinity_format - 1);
}
std::size_t omp_get_affinity_format(char* text, std::size_t room) {
  const std::size_t length = std::strlen(settings.affinity_format);
  if (room != 0) {
    const std::size_t copied = std::min(length, room - 1);
    std::memcpy(text, settings.affinity_format, copied);
    text[copied] = '\0';
  }
  return length;
}
void omp_display_affinity(const char* format) {
  display_affinity(this_thread(), format);
}
std::size_t omp_capture_affinity(char* text, std::size_t room, const char* format) {
  const bool own = format == nullptr || *format == '\0';
  return print_affinity(this_thread(), own ? settings.affinity_format : format, text, room);
}
void omp_display_env(int verbose) {
  display_environment(verbose != 0);
}

double omp_get_wtime() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return double(now.tv_sec) + double(now.tv_nsec) / 1e9;
}
double omp_get_wtick() {
  timespec tick{};
  clock_getres(CLOCK_MONOTONIC, &tick);
  return double(tick.tv_sec) + double(tick.tv_nsec) / 1e9;
}

void omp_set_default_device(int device) {
  icvs().default_device = std::max(device, 0);
}
int omp_get_default_device() {
  return icvs().default_device;
}
int omp_get_num_devices() {
  return 0;
}
int omp_get_device_num() {
  return kHostDevice;
}
int omp_get_initial_device() {
  return kHostDevice;
}
int omp_is_initial_device() {
  return 1;
}

void omp_fulfill_event(std::uintptr_t event) {
  fulfill(reinterpret_cast<Task*>(event));
}

// Only outside of parallel regions. What threads keep for the next region is given up.
int omp_pause_resource_all(int kind) {
  if (kind != 1 && kind != 2) return -1;
  Thread& thread = this_thread();
  if (thread.at.team->level != 0) return -1;
  drop_idle_pools(thread);
  return 0;
}
int omp_pause_resource(int kind, int device) {
  return device == kHostDevice ? omp_pause_resource_all(kind) : -1;
}
}
