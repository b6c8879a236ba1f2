// The omp_* functions that api.cpp defines and others here call.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
void omp_set_num_threads(int threads);
int omp_get_num_threads();
int omp_get_max_threads();
int omp_get_thread_num();
int omp_get_num_procs();
int omp_in_parallel();
void omp_set_dynamic(int value);
int omp_get_dynamic();
void omp_set_nested(int value);
int omp_get_nested();
void omp_set_schedule(unsigned kind, int chunk);
void omp_get_schedule(unsigned* kind, int* chunk);
int omp_get_thread_limit();
void omp_set_max_active_levels(int levels);
int omp_get_max_active_levels();
int omp_get_supported_active_levels();
int omp_get_level();
int omp_get_active_level();
int omp_get_ancestor_thread_num(int level);
int omp_get_team_size(int level);
int omp_in_final();
int omp_get_cancellation();
int omp_get_max_task_priority();
int omp_get_num_teams();
int omp_get_team_num();
void omp_set_num_teams(int teams);
int omp_get_max_teams();
void omp_set_teams_thread_limit(int limit);
int omp_get_teams_thread_limit();
int omp_get_proc_bind();
int omp_get_num_places();
int omp_get_place_num();
int omp_get_place_num_procs(int place);
void omp_get_place_proc_ids(int place, int* processors);
int omp_get_partition_num_places();
void omp_get_partition_place_nums(int* numbers);
void omp_set_affinity_format(const char* format);
std::size_t omp_get_affinity_format(char* text, std::size_t room);
void omp_display_affinity(const char* format);
std::size_t omp_capture_affinity(char* text, std::size_t room, const char* format);
void omp_display_env(int verbose);
double omp_get_wtime();
double omp_get_wtick();
void omp_set_default_device(int device);
int omp_get_default_device();
int omp_get_num_devices();
int omp_get_device_num();
int omp_get_initial_device();
int omp_is_initial_device();
void omp_fulfill_event(std::uintptr_t event);
int omp_pause_resource_all(int kind);
int omp_pause_resource(int kind, int device);
}
