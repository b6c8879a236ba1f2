// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/cpu_timers.h"

#include <algorithm>
#include <csignal>

#include "kernel_values.h"

namespace krg {
namespace {

constexpr int64_t kNsPerMicrosecond = 1000, kMicrosecondsPerSecond = 1'000'000;

int64_t ns_of(const timeval& time) {
  return time.tv_sec * kNsPerSecond + time.tv_usec * kNsPerMicrosecond;
}

timeval time_of(int64_t ns) {
  return {ns / kNsPerSecond, ns % kNsPerSecond / kNsPerMicrosecond};
}

}  // namespace

bool CpuTimers::is_valid(const itimerval& timer) {
  const auto is_time = [](const timeval& time) {
    return time.tv_sec >= 0 && time.tv_sec < INT64_MAX / kNsPerSecond / 2 && time.tv_usec >= 0 &&
           time.tv_usec < kMicrosecondsPerSecond;
  };
  return is_time(timer.it_value) && is_time(timer.it_interval);
}

itimerval CpuTimers::set(int which, const itimerval& timer, const CpuTime& used) {
  const itimerval before = get(which, used);
  const size_t index = index_of(which);
  Timer& one = timers_[index];
  one.interval_ns = ns_of(timer.it_interval);
  one.expires_ns.reset();
  if (const int64_t first = ns_of(timer.it_value); first > 0)
    one.expires_ns = clock_of(index, used) + first;
  return before;
}

// One that has expired, but has yet to be told of, is not yet over.
itimerval CpuTimers::get(int which, const CpuTime& used) const {
  const size_t index = index_of(which);
  const Timer& one = timers_[index];
  itimerval left{time_of(one.interval_ns), {}};
  if (one.expires_ns)
    left.it_value = time_of(std::max(*one.expires_ns - clock_of(index, used), kNsPerMicrosecond));
  return left;
}

bool CpuTimers::is_any_set() const {
  return std::any_of(timers_.begin(), timers_.end(),
                     [](const Timer& one) { return one.expires_ns.has_value(); });
}

std::vector<int> CpuTimers::take_expired(const CpuTime& used) {
  std::vector<int> signals;
  for (size_t index = 0; index < timers_.size(); ++index) {
    Timer& one = timers_[index];
    if (!one.expires_ns || clock_of(index, used) < *one.expires_ns) continue;
    signals.push_back(index == kVirtual ? SIGVTALRM : SIGPROF);
    if (one.interval_ns > 0)
      *one.expires_ns += one.interval_ns;
    else
      one.expires_ns.reset();
  }
  return signals;
}

std::optional<int64_t> CpuTimers::next(const CpuTime& used) const {
  std::optional<int64_t> least;
  for (size_t index = 0; index < timers_.size(); ++index)
    if (const auto expires = timers_[index].expires_ns) {
      const int64_t left = std::max<int64_t>(*expires - clock_of(index, used), 0);
      least = std::min(least.value_or(left), left);
    }
  return least;
}

}  // namespace krg
