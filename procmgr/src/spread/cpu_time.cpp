// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/cpu_time.h"

#include <fmt/format.h>
#include <unistd.h>

#include "kernel_values.h"
#include "pid_texts.h"
#include "process_status.h"
#include "text_scan.h"

namespace krg {
std::optional<TaskTimes> parse_task_times(std::string_view stat, std::string_view schedstat,
                                          int64_t ticks_per_s) {
  const auto told = parse_stat_times(stat);
  if (!told) return std::nullopt;
  const int64_t ticks = told->user_ticks + told->system_ticks;
  std::string_view rest = trimmed(schedstat);
  const int64_t all =
      to_number<int64_t>(next_word(rest)).value_or(ticks * (kNsPerSecond / ticks_per_s));
  TaskTimes times;
  times.state = told->state;
  if (ticks > 0)
    times.used.system_ns =
        static_cast<int64_t>(static_cast<double>(all) * static_cast<double>(told->system_ticks) /
                             static_cast<double>(ticks));
  times.used.user_ns = all - times.used.system_ns;
  return times;
}

std::optional<TaskTimes> read_task_times(pid_t pid, pid_t tid) {
  const auto text = [&](const char* name) {
    return read_proc_text(pid, fmt::format("task/{}/{}", tid, name).c_str());
  };
  auto stat = text("stat");
  if (!stat) return std::nullopt;
  auto schedstat = text("schedstat");
  return parse_task_times(*stat, schedstat ? *schedstat : std::string_view{}, sysconf(_SC_CLK_TCK));
}

}  // namespace krg
