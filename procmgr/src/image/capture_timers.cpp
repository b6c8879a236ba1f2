// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/syscall.h>

#include <cinttypes>
#include <csignal>
#include <cstdio>
#include <ctime>

#include "image/call_batch.h"
#include "image/capture_parts.h"
#include "kernel_values.h"
#include "process_spec.h"
#include "whole_file.h"

namespace krg {
namespace {

int64_t nanoseconds(const timespec& time) {
  return time.tv_sec * kNsPerSecond + time.tv_nsec;
}

// "ID: 1", "signal: 14/00007fff86e452a8", "notify: signal/tid.2634", "ClockID: 0".
std::vector<ImageTimer> parse_timers(std::string_view rest) {
  std::vector<ImageTimer> timers;
  while (!rest.empty()) {
    const std::string line(next_line(rest));
    int id, signal, thread;
    uint64_t value;
    char notify[8] = "", kind[4] = "";
    if (sscanf(line.c_str(), "ID: %d", &id) == 1) timers.push_back({.id = id});
    if (timers.empty()) continue;
    ImageTimer& timer = timers.back();
    if (sscanf(line.c_str(), "signal: %d/%" SCNx64, &signal, &value) == 2) {
      timer.signal = signal;
      timer.value = value;
    }
    if (sscanf(line.c_str(), "notify: %7[a-z]/%3[a-z].%d", notify, kind, &thread) == 3) {
      const std::string_view how(notify);
      timer.notify = how == "none" ? SIGEV_NONE : how == "thread" ? SIGEV_THREAD : SIGEV_SIGNAL;
      if (std::string_view(kind) == "tid") {
        timer.notify |= SIGEV_THREAD_ID;
        timer.thread = thread;
      }
    }
    sscanf(line.c_str(), "ClockID: %d", &timer.clock);
  }
  return timers;
}

}  // namespace

Result<std::vector<ImageTimer>> capture_timers(FrozenProcess& process) {
  auto text = read_whole_file(fmt::format("/proc/{}/timers", process.pid()));
  if (!text) return cannot_move("timers that this kernel does not show");
  auto timers = parse_timers(*text);
  CallBatch batch(process);
  std::vector<RemoteAddr> left_at;
  for (const ImageTimer& timer : timers) {
    if (timer.clock < 0) return cannot_move("a timer of another clock than the kernel's own");
    left_at.push_back(batch.put(itimerspec{}));
    batch.add(SYS_timer_gettime, {static_cast<uint64_t>(timer.id), left_at.back().value});
  }
  if (timers.empty()) return timers;
  if (auto run = batch.run(); !run) return run.error();
  for (size_t i = 0; i < timers.size(); ++i) {
    if (batch.result(i) != 0) return errno_error("a timer", ESRCH);
    const auto left = batch.value<itimerspec>(left_at[i]);
    timers[i].left_ns = nanoseconds(left.it_value);
    timers[i].interval_ns = nanoseconds(left.it_interval);
  }
  return timers;
}

}  // namespace krg
