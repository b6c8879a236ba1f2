// Rewriting /proc/PID/stat and status of a process that does not stand in its kernel's tree where
// it stands in the cluster's: a body's parent, group, session and terminal are its shadow's. Pure.
// The command in stat may hold anything, blanks, parentheses and newlines too. Source: proc(5).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace krg {

// What a process is to its relatives, in every node's terms. Travels in messages.
struct PidIdentity {
  pid_t pid = 0;
  pid_t parent = 0;
  pid_t group = 0;
  pid_t session = 0;
  int32_t tty = 0;  // device number as stat shows it
  pid_t foreground_group = -1;
  int64_t start_epoch_ns = 0;  // since 1970, by the clock of the node where it was born
};

static_assert(sizeof(PidIdentity) == 32);

// The fields of a stat text that are looked at.
struct PidStat {
  pid_t parent = 0, group = 0, session = 0;
  int32_t tty = 0;
  pid_t foreground_group = -1;
  uint32_t flags = 0;        // PF_* of the kernel's linux/sched.h
  uint64_t start_ticks = 0;  // after the boot of the node whose text it is
};
// Nothing when the text is not a stat.
std::optional<PidStat> parse_pid_stat(std::string_view text);

// A stat text's state and times. Nothing when it does not tell them.
struct StatTimes {
  char state = '?';
  int64_t user_ticks = 0, system_ticks = 0;
};
std::optional<StatTimes> parse_stat_times(std::string_view text);

// Puts the identity's relatives in; `start_ticks` replaces the start time unless it is empty. A
// text that is not understood comes back as it is.
std::string rewrite_pid_stat(std::string_view text, const PidIdentity& identity,
                             std::optional<uint64_t> start_ticks);
std::string rewrite_pid_status(std::string_view text, const PidIdentity& identity);

// Adds to the times of a stat text, and puts another state in; of a status text, the state alone.
std::string add_to_pid_stat(std::string_view text, int64_t user_ticks, int64_t system_ticks,
                            const std::function<char(char)>& state);
std::string with_state(std::string_view text, const std::function<char(char)>& state);

// Where a process has its arguments and its environment. Nothing when the text does not tell.
struct ArgumentPlaces {
  uint64_t arguments = 0, arguments_end = 0, environment = 0, environment_end = 0;
};
std::optional<ArgumentPlaces> parse_argument_places(std::string_view stat);

// A node's clock and processors, as another node has to understand them.
struct StatShift {
  int64_t start_ticks = 0;  // added to the start time
  unsigned first_cpu = 0;   // added to the number of the last processor
};
std::string shift_pid_stat(std::string_view text, const StatShift& shift);

// Ticks (sysconf(_SC_CLK_TCK) a second) from `epoch_of_boot_ns` to `epoch_ns`, rounded, never below
// 0.
uint64_t ticks_since_boot(int64_t epoch_ns, int64_t epoch_of_boot_ns, int64_t ticks_per_s);

}  // namespace krg
