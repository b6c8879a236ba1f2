// target and teams: there is one device, the host. A target region runs on the calling thread, in a
// team of its own.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "team.h"

namespace krg::omp {
namespace {

constexpr int kHostFallback = -2;  // target if(false)
constexpr int kAnyHost =
    -1;  // omp_initial_device of later OpenMP versions; in the ABI: the default device

bool is_host(int device) {
  return device == kHostDevice || device == kAnyHost;
}

void check_device(int device) {
  if (device == kAnyHost) device = this_thread().at.task->icvs.default_device;
  if (settings.offload == Offload::mandatory && device != kHostFallback && device != kHostDevice)
    fatal("OMP_TARGET_OFFLOAD is set to MANDATORY, but device cannot be used for offloading");
}

// As if the region ran on another device: outside of every parallel region, with the initial
// control variables.
class OwnTeam {
 public:
  explicit OwnTeam(unsigned thread_limit) : thread_(this_thread()), pool_(take_pool(thread_)) {
    const Places partition = thread_.at.partition;
    Icvs icvs = settings.initial;
    if (thread_limit != 0) icvs.thread_limit = thread_limit;
    enter_serial_team(thread_, pool_, icvs);
    thread_.at.partition = partition;
  }
  ~OwnTeam() {
    wait_for_children();
    Team& team = pool_.team;
    team.first_share = thread_.at.shares_met;
    team.first_single = thread_.at.singles_met;
    thread_.at = team.outer;
    give_pool(thread_, pool_);
  }
  OwnTeam(const OwnTeam&) = delete;
  OwnTeam& operator=(const OwnTeam&) = delete;

 private:
  Thread& thread_;
  Pool& pool_;
};

unsigned thread_limit_of(void** arguments) {
  unsigned limit = 0;
  for (; arguments != nullptr && *arguments != nullptr; ++arguments) {
    const auto id = reinterpret_cast<std::uintptr_t>(*arguments);
    std::uintptr_t value = id >> kTargetValueShift;
    if ((id & kTargetSubsequent) != 0) value = reinterpret_cast<std::uintptr_t>(*++arguments);
    if ((id & kTargetIdMask) == kTargetThreadLimit)
      limit = unsigned(std::min<std::uintptr_t>(value, INT_MAX));
  }
  return limit;
}

// The region's own copies of firstprivate variables, for as long as it runs.
class FirstPrivates {
 public:
  FirstPrivates(std::size_t count, void** addresses, const std::size_t* sizes,
                const unsigned short* kinds) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (is_copied(addresses, kinds, i)) bytes = align(bytes, kinds[i]) + sizes[i];
    }
    if (bytes == 0) return;
    memory_ = static_cast<char*>(std::aligned_alloc(64, (bytes + 127) & ~std::size_t(63)));
    if (memory_ == nullptr) fatal("no memory for %zu bytes of firstprivate variables", bytes);
    std::size_t at = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (!is_copied(addresses, kinds, i)) continue;
      at = align(at, kinds[i]);
      std::memcpy(memory_ + at, addresses[i], sizes[i]);
      addresses[i] = memory_ + at;
      at += sizes[i];
    }
  }
  ~FirstPrivates() { std::free(memory_); }
  FirstPrivates(const FirstPrivates&) = delete;
  FirstPrivates& operator=(const FirstPrivates&) = delete;

 private:
  static bool is_copied(void** addresses, const unsigned short* kinds, std::size_t i) {
    return (kinds[i] & 0xff) == kMapFirstPrivate && addresses[i] != nullptr;
  }
  static std::size_t align(std::size_t at, unsigned short kind) {
    const std::size_t alignment = std::size_t(1) << (kind >> 8);
    return (at + alignment - 1) & ~(alignment - 1);
  }
  char* memory_ = nullptr;
};

// Copies a box of `dimensions` dimensions out of one array into another one.
int copy_box(char* to, const char* from, std::size_t element, int dimensions,
             const std::size_t* volume, const std::size_t* to_offsets,
             const std::size_t* from_offsets, const std::size_t* to_sizes,
             const std::size_t* from_sizes) {
  if (dimensions == 1) {
    std::size_t bytes = 0, to_at = 0, from_at = 0;
    if (__builtin_mul_overflow(element, volume[0], &bytes) ||
        __builtin_mul_overflow(element, to_offsets[0], &to_at) ||
        __builtin_mul_overflow(element, from_offsets[0], &from_at))
      return EINVAL;
    std::memmove(to + to_at, from + from_at, bytes);
    return 0;
  }
  std::size_t to_slice = element, from_slice = element;
  for (int i = 1; i < dimensions; ++i) {
    to_slice *= to_sizes[i];
    from_slice *= from_sizes[i];
  }
  for (std::size_t i = 0; i < volume[0]; ++i) {
    const int failed = copy_box(
        to + (to_offsets[0] + i) * to_slice, from + (from_offsets[0] + i) * from_slice, element,
        dimensions - 1, volume + 1, to_offsets + 1, from_offsets + 1, to_sizes + 1, from_sizes + 1);
    if (failed != 0) return failed;
  }
  return 0;
}

unsigned limit_of(unsigned limit) {
  return limit > INT_MAX ? UINT_MAX : limit;
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

void GOMP_target(int device, Function function, const void*, std::size_t, void** addresses,
                 std::size_t*, unsigned char*) {
  check_device(device);
  const OwnTeam team(0);
  function(addresses);
}
void GOMP_target_ext(int device, Function function, std::size_t count, void** addresses,
                     std::size_t* sizes, unsigned short* kinds, unsigned, void** depend,
                     void** arguments) {
  check_device(device);
  if (depend != nullptr) wait_for_dependences(depend);
  const FirstPrivates copies(count, addresses, sizes, kinds);
  const OwnTeam team(thread_limit_of(arguments));
  function(addresses);
}
void GOMP_target_data(int device, const void*, std::size_t, void**, std::size_t*, unsigned char*) {
  check_device(device);
}
void GOMP_target_data_ext(int device, std::size_t, void**, std::size_t*, unsigned short*) {
  check_device(device);
}
void GOMP_target_end_data() {}
void GOMP_target_update(int device, const void*, std::size_t, void**, std::size_t*,
                        unsigned char*) {
  check_device(device);
}
void GOMP_target_update_ext(int device, std::size_t, void**, std::size_t*, unsigned short*,
                            unsigned, void** depend) {
  check_device(device);
  if (depend != nullptr) wait_for_dependences(depend);
}
void GOMP_target_enter_exit_data(int device, std::size_t, void**, std::size_t*, unsigned short*,
                                 unsigned, void** depend) {
  check_device(device);
  if (depend != nullptr) wait_for_dependences(depend);
}

// teams inside target: one team after the other, on this thread.
void GOMP_teams(unsigned, unsigned thread_limit) {
  if (thread_limit != 0) this_thread().at.task->icvs.thread_limit = limit_of(thread_limit);
}
bool GOMP_teams4(unsigned least, unsigned most, unsigned thread_limit, bool first) {
  const Position& at = this_thread().at;
  Team& league = *at.team;
  if (first) {
    if (thread_limit == 0) thread_limit = settings.teams_thread_limit;
    if (thread_limit != 0) at.task->icvs.thread_limit = limit_of(thread_limit);
    league.teams = most != 0 ? most : std::max({settings.teams, least, 1U});
    league.team_number = 0;
    return true;
  }
  if (league.team_number + 1 < league.teams) {
    ++league.team_number;
    return true;
  }
  league.team_number = 0;
  league.teams = 1;
  return false;
}
// teams on the host.
void GOMP_teams_reg(Function function, void* data, unsigned teams, unsigned thread_limit,
                    unsigned) {
  const Position& at = this_thread().at;
  Team& league = *at.team;
  const Icvs kept = at.task->icvs;
  if (teams == 0) teams = std::max(settings.teams, 1U);
  if (thread_limit == 0) thread_limit = settings.teams_thread_limit;
  league.teams = teams;
  for (league.team_number = 0; league.team_number < teams; ++league.team_number) {
    at.task->icvs = kept;
    if (thread_limit != 0) at.task->icvs.thread_limit = limit_of(thread_limit);
    function(data);
  }
  league.teams = 1;
  league.team_number = 0;
  at.task->icvs = kept;
}

void* omp_target_alloc(std::size_t bytes, int device) {
  return is_host(device) ? std::malloc(bytes) : nullptr;
}
void omp_target_free(void* memory, int device) {
  if (is_host(device)) std::free(memory);
}
int omp_target_is_present(const void* pointer, int device) {
  return pointer == nullptr || is_host(device) ? 1 : 0;
}
int omp_target_memcpy(void* to, const void* from, std::size_t bytes, std::size_t to_offset,
                      std::size_t from_offset, int to_device, int from_device) {
  if (!is_host(to_device) || !is_host(from_device)) return EINVAL;
  std::memmove(static_cast<char*>(to) + to_offset, static_cast<const char*>(from) + from_offset,
               bytes);
  return 0;
}
int omp_target_memcpy_rect(void* to, const void* from, std::size_t element, int dimensions,
                           const std::size_t* volume, const std::size_t* to_offsets,
                           const std::size_t* from_offsets, const std::size_t* to_sizes,
                           const std::size_t* from_sizes, int to_device, int from_device) {
  if (to == nullptr && from == nullptr) return INT_MAX;  // any number of dimensions
  if (!is_host(to_device) || !is_host(from_device) || dimensions < 1) return EINVAL;
  return copy_box(static_cast<char*>(to), static_cast<const char*>(from), element, dimensions,
                  volume, to_offsets, from_offsets, to_sizes, from_sizes);
}
int omp_target_associate_ptr(const void*, const void*, std::size_t, std::size_t, int) {
  return EINVAL;
}
int omp_target_disassociate_ptr(const void*, int) {
  return EINVAL;
}

void GOMP_warning(const char* text, std::size_t length) {
  if (length == SIZE_MAX) length = text != nullptr ? std::strlen(text) : 0;
  complain("error directive encountered: %.*s", int(length), text != nullptr ? text : "");
}
void GOMP_error(const char* text, std::size_t length) {
  if (length == SIZE_MAX) length = text != nullptr ? std::strlen(text) : 0;
  fatal("fatal error: error directive encountered: %.*s", int(length), text != nullptr ? text : "");
}
}
