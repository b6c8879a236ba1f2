// Fortran's forms of the omp_* functions: arguments by reference; _8_ for default integers of 8
// bytes; character arguments with their lengths at the end.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <climits>
#include <cstring>

#include "api.h"
#include "places.h"
#include "team.h"

namespace krg::omp {
namespace {

int narrow(std::int64_t value) {
  return int(std::clamp<std::int64_t>(value, INT_MIN, INT_MAX));
}

// A blank-padded Fortran string as a C string in `to`, which has room for it.
struct FormatText {
  char text[sizeof settings.affinity_format];
  FormatText(const char* from, std::size_t length) {
    while (length > 0 && from[length - 1] == ' ') --length;
    length = std::min(length, sizeof text - 1);
    std::memcpy(text, from, length);
    text[length] = '\0';
  }
};

// The other way: fills up with blanks.
void pad(char* text, std::size_t length, std::size_t room) {
  if (length < room) std::memset(text + length, ' ', room - length);
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

std::int32_t omp_get_num_threads_() {
  return omp_get_num_threads();
}
std::int32_t omp_get_max_threads_() {
  return omp_get_max_threads();
}
std::int32_t omp_get_thread_num_() {
  return omp_get_thread_num();
}
std::int32_t omp_get_num_procs_() {
  return omp_get_num_procs();
}
std::int32_t omp_in_parallel_() {
  return omp_in_parallel();
}
std::int32_t omp_get_dynamic_() {
  return omp_get_dynamic();
}
std::int32_t omp_get_nested_() {
  return omp_get_nested();
}
std::int32_t omp_get_thread_limit_() {
  return omp_get_thread_limit();
}
std::int32_t omp_get_max_active_levels_() {
  return omp_get_max_active_levels();
}
std::int32_t omp_get_supported_active_levels_() {
  return omp_get_supported_active_levels();
}
std::int32_t omp_get_level_() {
  return omp_get_level();
}
std::int32_t omp_get_active_level_() {
  return omp_get_active_level();
}
std::int32_t omp_in_final_() {
  return omp_in_final();
}
std::int32_t omp_get_cancellation_() {
  return omp_get_cancellation();
}
std::int32_t omp_get_proc_bind_() {
  return omp_get_proc_bind();
}
std::int32_t omp_get_num_places_() {
  return omp_get_num_places();
}
std::int32_t omp_get_place_num_() {
  return omp_get_place_num();
}
std::int32_t omp_get_partition_num_places_() {
  return omp_get_partition_num_places();
}
std::int32_t omp_get_default_device_() {
  return omp_get_default_device();
}
std::int32_t omp_get_num_devices_() {
  return omp_get_num_devices();
}
std::int32_t omp_get_device_num_() {
  return omp_get_device_num();
}
std::int32_t omp_get_num_teams_() {
  return omp_get_num_teams();
}
std::int32_t omp_get_team_num_() {
  return omp_get_team_num();
}
std::int32_t omp_is_initial_device_() {
  return omp_is_initial_device();
}
std::int32_t omp_get_initial_device_() {
  return omp_get_initial_device();
}
std::int32_t omp_get_max_task_priority_() {
  return omp_get_max_task_priority();
}
std::int32_t omp_get_max_teams_() {
  return omp_get_max_teams();
}
std::int32_t omp_get_teams_thread_limit_() {
  return omp_get_teams_thread_limit();
}

double omp_get_wtime_() {
  return omp_get_wtime();
}
double omp_get_wtick_() {
  return omp_get_wtick();
}

// One argument of either integer kind.
void omp_set_num_threads_(const std::int32_t* value) {
  omp_set_num_threads(*value);
}
void omp_set_num_threads_8_(const std::int64_t* value) {
  omp_set_num_threads(narrow(*value));
}
void omp_set_dynamic_(const std::int32_t* value) {
  omp_set_dynamic(*value != 0);
}
void omp_set_dynamic_8_(const std::int64_t* value) {
  omp_set_dynamic(*value != 0);
}
void omp_set_nested_(const std::int32_t* value) {
  omp_set_nested(*value != 0);
}
void omp_set_nested_8_(const std::int64_t* value) {
  omp_set_nested(*value != 0);
}
void omp_set_max_active_levels_(const std::int32_t* value) {
  omp_set_max_active_levels(*value);
}
void omp_set_max_active_levels_8_(const std::int64_t* value) {
  omp_set_max_active_levels(narrow(*value));
}
void omp_set_default_device_(const std::int32_t* value) {
  omp_set_default_device(*value);
}
void omp_set_default_device_8_(const std::int64_t* value) {
  omp_set_default_device(narrow(*value));
}
void omp_set_num_teams_(const std::int32_t* value) {
  omp_set_num_teams(*value);
}
void omp_set_num_teams_8_(const std::int64_t* value) {
  omp_set_num_teams(narrow(*value));
}
void omp_set_teams_thread_limit_(const std::int32_t* value) {
  omp_set_teams_thread_limit(*value);
}
void omp_set_teams_thread_limit_8_(const std::int64_t* value) {
  omp_set_teams_thread_limit(narrow(*value));
}
void omp_display_env_(const std::int32_t* value) {
  omp_display_env(*value != 0);
}
void omp_display_env_8_(const std::int64_t* value) {
  omp_display_env(*value != 0);
}
std::int32_t omp_get_ancestor_thread_num_(const std::int32_t* value) {
  return omp_get_ancestor_thread_num(*value);
}
std::int32_t omp_get_ancestor_thread_num_8_(const std::int64_t* value) {
  return omp_get_ancestor_thread_num(narrow(*value));
}
std::int32_t omp_get_team_size_(const std::int32_t* value) {
  return omp_get_team_size(*value);
}
std::int32_t omp_get_team_size_8_(const std::int64_t* value) {
  return omp_get_team_size(narrow(*value));
}
std::int32_t omp_get_place_num_procs_(const std::int32_t* value) {
  return omp_get_place_num_procs(*value);
}
std::int32_t omp_get_place_num_procs_8_(const std::int64_t* value) {
  return omp_get_place_num_procs(narrow(*value));
}

void omp_set_schedule_(const std::int32_t* kind, const std::int32_t* chunk) {
  omp_set_schedule(unsigned(*kind), *chunk);
}
void omp_set_schedule_8_(const std::int32_t* kind, const std::int64_t* chunk) {
  omp_set_schedule(unsigned(*kind), narrow(*chunk));
}
void omp_get_schedule_(std::int32_t* kind, std::int32_t* chunk) {
  unsigned schedule = 0;
  omp_get_schedule(&schedule, chunk);
  // Fortran's constants have no monotonic modifier.
  *kind = std::int32_t(schedule & ~kMonotonic);
}
void omp_get_schedule_8_(std::int32_t* kind, std::int64_t* chunk) {
  std::int32_t narrow_chunk = 0;
  omp_get_schedule_(kind, &narrow_chunk);
  *chunk = narrow_chunk;
}

void omp_get_place_proc_ids_(const std::int32_t* place, std::int32_t* processors) {
  omp_get_place_proc_ids(*place, processors);
}
void omp_get_place_proc_ids_8_(const std::int64_t* place, std::int64_t* processors) {
  if (*place < 0 || *place >= std::int64_t(places.count)) return;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(std::size_t(i), &places.sets[*place])) *processors++ = i;
  }
}
void omp_get_partition_place_nums_(std::int32_t* numbers) {
  omp_get_partition_place_nums(numbers);
}
void omp_get_partition_place_nums_8_(std::int64_t* numbers) {
  const Places& part = this_thread().at.partition;
  for (unsigned i = 0; i < part.count; ++i) numbers[i] = std::int64_t(part.first) + i;
}

void omp_set_affinity_format_(const char* format, std::size_t length) {
  omp_set_affinity_format(FormatText(format, length).text);
}
std::int32_t omp_get_affinity_format_(char* text, std::size_t room) {
  const std::size_t length = std::strlen(settings.affinity_format);
  std::memcpy(text, settings.affinity_format, std::min(length, room));
  pad(text, length, room);
  return std::int32_t(length);
}
void omp_display_affinity_(const char* format, std::size_t length) {
  omp_display_affinity(FormatText(format, length).text);
}
std::int32_t omp_capture_affinity_(char* text, const char* format, std::size_t room,
                                   std::size_t length) {
  char whole[8192];
  const std::size_t needed =
      omp_capture_affinity(whole, sizeof whole, FormatText(format, length).text);
  std::memcpy(text, whole, std::min({needed, room, sizeof whole - 1}));
  pad(text, std::min(needed, sizeof whole - 1), room);
  return std::int32_t(needed);
}

void omp_fulfill_event_(std::uintptr_t event) {
  omp_fulfill_event(event);
}  // by value
std::int32_t omp_pause_resource_(const std::int32_t* kind, const std::int32_t* device) {
  return omp_pause_resource(*kind, *device);
}
std::int32_t omp_pause_resource_all_(const std::int32_t* kind) {
  return omp_pause_resource_all(*kind);
}
}
