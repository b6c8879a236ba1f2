// target and teams on the host, memory that OpenMP allocates, places.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <omp.h>
#include <stdint.h>
#include <string.h>

#include "expect.h"

static void targets(void) {
  int a = 1, b[10], c = 5;
  memset(b, 0, sizeof b);
#pragma omp target map(tofrom : a, b) firstprivate(c)
  {
    a += c;
    for (int i = 0; i < 10; ++i) b[i] = i;
    c = 0;
  }
  expect(a == 6 && b[9] == 9 && c == 5, "target");
#pragma omp target data map(to : a) map(tofrom : b)
  {
#pragma omp target update to(a)
#pragma omp target map(tofrom : b)
    b[0] = a;
  }
#pragma omp target enter data map(to : b)
#pragma omp target exit data map(from : b)
  expect(b[0] == 6, "target data");
  expect(omp_is_initial_device() && omp_get_num_devices() == 0, "the host");
  int x = 0;
#pragma omp parallel
#pragma omp single
  {
#pragma omp target nowait depend(out : x) map(tofrom : x)
    x = 3;
#pragma omp target depend(inout : x) map(tofrom : x)
    x *= 2;
#pragma omp taskwait
  }
  expect(x == 6, "target depend");
}

static void leagues(void) {
  int teams = 0, visits[64] = {0};
#pragma omp target teams num_teams(3) thread_limit(2) map(tofrom : teams) reduction(+ : teams)
  teams += 1;
  expect(teams >= 1 && teams <= 3, "target teams");
#pragma omp target teams distribute parallel for map(tofrom : visits)
  for (int i = 0; i < 64; ++i) visits[i] += omp_get_num_teams() > omp_get_team_num();
  int sum = 0;
#pragma omp teams distribute parallel for reduction(+ : sum) num_teams(2)
  for (int i = 0; i < 64; ++i) sum += visits[i];
  expect(sum == 64, "distribute");
  int seen = 0, count = 0;
#pragma omp teams num_teams(4) reduction(+ : count) shared(seen)
  {
    count += omp_get_team_num() + 1;
#pragma omp parallel num_threads(2)
    {
#pragma omp atomic
      seen += omp_get_team_num() < omp_get_num_teams();
    }
  }
  expect(seen >= 1 && count >= 1, "teams");
}

static void memory(void) {
  omp_alloctrait_t traits[] = {
      {omp_atk_alignment, 256}, {omp_atk_pool_size, 4096}, {omp_atk_fallback, omp_atv_null_fb}};
  omp_allocator_handle_t pool = omp_init_allocator(omp_default_mem_space, 3, traits);
  char* one = omp_alloc(1000, pool);
  expect(one != NULL && (uintptr_t)one % 256 == 0, "alignment trait");
  expect(omp_alloc(4000, pool) == NULL, "pool size");
  memset(one, 3, 1000);
  omp_free(one, pool);
  one = omp_calloc(10, 100, omp_null_allocator);
  expect(one != NULL && one[999] == 0, "calloc");
  one[999] = 7;
  one = omp_realloc(one, 5000, omp_null_allocator, omp_null_allocator);
  expect(one != NULL && one[999] == 7, "realloc");
  omp_free(one, omp_null_allocator);
  one = omp_aligned_alloc(4096, 100, omp_default_mem_alloc);
  expect(one != NULL && (uintptr_t)one % 4096 == 0, "aligned_alloc");
  omp_free(one, omp_default_mem_alloc);
  omp_destroy_allocator(pool);
  int from[6] = {1, 2, 3, 4, 5, 6}, to[4] = {0};
  const size_t volume[2] = {2, 2}, to_offset[2] = {0, 0}, from_offset[2] = {0, 1},
               to_size[2] = {2, 2}, from_size[2] = {2, 3};
  const int host = omp_get_initial_device();
  expect(omp_target_memcpy_rect(to, from, sizeof(int), 2, volume, to_offset, from_offset, to_size,
                                from_size, host, host) == 0,
         "rect");
  expect(to[0] == 2 && to[1] == 3 && to[2] == 5 && to[3] == 6, "memcpy_rect");
  void* device = omp_target_alloc(64, host);
  expect(omp_target_is_present(device, host) &&
             omp_target_memcpy(device, from, 24, 0, 0, host, host) == 0,
         "target memory");
  omp_target_free(device, host);
}

static void places(void) {
  int total = 0;
  for (int i = 0; i < omp_get_num_places(); ++i) {
    int processors[1024];
    expect(omp_get_place_num_procs(i) >= 1, "a place has processors");
    omp_get_place_proc_ids(i, processors);
    total += omp_get_place_num_procs(i);
  }
  expect(total >= omp_get_num_places(), "places");
#pragma omp parallel proc_bind(spread)
  expect(omp_get_place_num() < omp_get_num_places(), "place number");
#pragma omp parallel proc_bind(close)
  expect(omp_get_partition_num_places() <= omp_get_num_places(), "partition");
  char text[100];
  omp_set_affinity_format("%{thread_num}/%{num_threads} %0.4L");
  expect(omp_capture_affinity(text, sizeof text, NULL) == 8 && strcmp(text, "0/1 0000") == 0,
         "affinity format");
}

int main(void) {
  for (int round = 0; round < 5; ++round) {
    targets();
    leagues();
    memory();
    places();
  }
  expect(omp_pause_resource_all(omp_pause_soft) == 0, "pause");
  targets();
  return result();
}
