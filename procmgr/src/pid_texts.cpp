// SPDX-License-Identifier: GPL-2.0-or-later
#include "pid_texts.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "text_scan.h"

namespace krg {
namespace {

// Positions after the command's closing parenthesis; proc(5) counts from 1 and the state is 3.
constexpr size_t field(size_t number_in_proc5) {
  return number_in_proc5 - 3;
}
constexpr size_t kState = field(3);
constexpr size_t kParent = field(4);
constexpr size_t kGroup = field(5);
constexpr size_t kSession = field(6);
constexpr size_t kTty = field(7);
constexpr size_t kForegroundGroup = field(8);
constexpr size_t kFlags = field(9);
constexpr size_t kUserTicks = field(14);
constexpr size_t kSystemTicks = field(15);
constexpr size_t kStartTicks = field(22);
constexpr size_t kProcessor = field(39);
constexpr size_t kArguments = field(48);
constexpr size_t kEnvironmentEnd = field(51);

struct StatText {
  std::string_view head;  // "PID (COMMAND)"
  std::vector<std::string_view> fields;
};

std::optional<StatText> split_stat(std::string_view text) {
  size_t command_end = text.rfind(')');
  if (command_end == std::string_view::npos) return std::nullopt;
  StatText stat{text.substr(0, command_end + 1),
                split_words(trimmed(text.substr(command_end + 1)))};
  if (stat.fields.size() <= kStartTicks) return std::nullopt;
  return stat;
}

std::string join_stat(const StatText& stat) {
  std::string text(stat.head);
  for (std::string_view value : stat.fields) text.append(" ").append(value);
  return text += '\n';
}

template <class Number>
Number number_at(const StatText& stat, size_t index) {
  return to_number<Number>(stat.fields[index]).value_or(Number{});
}

// As the kernel writes it behind a state's letter.
std::string_view name_of_state(char state) {
  switch (state) {
    case 'R':
      return " (running)";
    case 'S':
      return " (sleeping)";
    case 'D':
      return " (disk sleep)";
    case 'T':
      return " (stopped)";
    default:
      return "";
  }
}

// The line with its value exchanged, or as it is.
std::string with_value(std::string_view line, std::string_view key, pid_t value) {
  if (line.substr(0, key.size()) != key) return std::string(line);
  return fmt::format("{}\t{}", key, value);
}

}  // namespace

std::optional<PidStat> parse_pid_stat(std::string_view text) {
  auto stat = split_stat(text);
  if (!stat) return std::nullopt;
  return PidStat{.parent = number_at<pid_t>(*stat, kParent),
                 .group = number_at<pid_t>(*stat, kGroup),
                 .session = number_at<pid_t>(*stat, kSession),
                 .tty = number_at<int32_t>(*stat, kTty),
                 .foreground_group = number_at<pid_t>(*stat, kForegroundGroup),
                 .flags = number_at<uint32_t>(*stat, kFlags),
                 .start_ticks = number_at<uint64_t>(*stat, kStartTicks)};
}

std::optional<StatTimes> parse_stat_times(std::string_view text) {
  auto stat = split_stat(text);
  if (!stat) return std::nullopt;
  const auto user = to_number<int64_t>(stat->fields[kUserTicks]);
  const auto system = to_number<int64_t>(stat->fields[kSystemTicks]);
  if (!user || !system) return std::nullopt;
  return StatTimes{stat->fields[kState].front(), *user, *system};
}

std::string rewrite_pid_stat(std::string_view text, const PidIdentity& identity,
                             std::optional<uint64_t> start_ticks) {
  auto stat = split_stat(text);
  if (!stat) return std::string(text);
  std::string parent = std::to_string(identity.parent), group = std::to_string(identity.group),
              session = std::to_string(identity.session), tty = std::to_string(identity.tty),
              foreground = std::to_string(identity.foreground_group), start;
  stat->fields[kParent] = parent;
  stat->fields[kGroup] = group;
  stat->fields[kSession] = session;
  stat->fields[kTty] = tty;
  stat->fields[kForegroundGroup] = foreground;
  if (start_ticks) stat->fields[kStartTicks] = start = std::to_string(*start_ticks);
  return join_stat(*stat);
}

std::string rewrite_pid_status(std::string_view text, const PidIdentity& identity) {
  std::string rewritten;
  while (!text.empty()) {
    std::string line = with_value(next_line(text), "PPid:", identity.parent);
    line = with_value(line, "NSpgid:", identity.group);
    rewritten += with_value(line, "NSsid:", identity.session);
    rewritten += '\n';
  }
  return rewritten;
}

std::string add_to_pid_stat(std::string_view text, int64_t user_ticks, int64_t system_ticks,
                            const std::function<char(char)>& state) {
  auto stat = split_stat(text);
  if (!stat) return std::string(text);
  const std::string letter(1, state(stat->fields[kState].front()));
  const std::string user = std::to_string(number_at<int64_t>(*stat, kUserTicks) + user_ticks);
  const std::string system = std::to_string(number_at<int64_t>(*stat, kSystemTicks) + system_ticks);
  stat->fields[kState] = letter;
  stat->fields[kUserTicks] = user;
  stat->fields[kSystemTicks] = system;
  return join_stat(*stat);
}

std::string with_state(std::string_view text, const std::function<char(char)>& state) {
  constexpr std::string_view kKey = "State:\t";
  std::string rewritten;
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    const bool is_it = line.starts_with(kKey) && line.size() > kKey.size();
    const char before = is_it ? line[kKey.size()] : '\0';
    const char after = is_it ? state(before) : before;
    if (before == after)
      rewritten += line;
    else
      rewritten.append(kKey).append(1, after).append(name_of_state(after));
    rewritten += '\n';
  }
  return rewritten;
}

std::optional<ArgumentPlaces> parse_argument_places(std::string_view text) {
  auto stat = split_stat(text);
  if (!stat || stat->fields.size() <= kEnvironmentEnd) return std::nullopt;
  const auto at = [&](size_t index) { return number_at<uint64_t>(*stat, index); };
  return ArgumentPlaces{at(kArguments), at(kArguments + 1), at(kArguments + 2),
                        at(kEnvironmentEnd)};
}

std::string shift_pid_stat(std::string_view text, const StatShift& shift) {
  auto stat = split_stat(text);
  if (!stat) return std::string(text);
  int64_t start_ticks = number_at<int64_t>(*stat, kStartTicks) + shift.start_ticks;
  std::string start = std::to_string(std::max<int64_t>(start_ticks, 0)), processor;
  stat->fields[kStartTicks] = start;
  if (stat->fields.size() > kProcessor) {
    processor = std::to_string(number_at<unsigned>(*stat, kProcessor) + shift.first_cpu);
    stat->fields[kProcessor] = processor;
  }
  return join_stat(*stat);
}

uint64_t ticks_since_boot(int64_t epoch_ns, int64_t epoch_of_boot_ns, int64_t ticks_per_s) {
  int64_t tick_ns = 1'000'000'000 / ticks_per_s;
  int64_t ticks = (epoch_ns - epoch_of_boot_ns + tick_ns / 2) / tick_ns;
  return static_cast<uint64_t>(std::max<int64_t>(ticks, 0));
}

}  // namespace krg
