// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/log.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace krg {
namespace {

LogLevel parse_level(std::string_view word) {
  static constexpr std::array<std::string_view, 6> kNames = {"trace", "debug", "info",
                                                             "warn",  "error", "off"};
  for (size_t i = 0; i < kNames.size(); ++i)
    if (word == kNames[i]) return static_cast<LogLevel>(i);
  return LogLevel::kWarn;
}

// The parsed KRG_LOG: rules in the order given, and the level of everything else.
struct LogConfig {
  std::vector<std::pair<std::string, LogLevel>> rules;
  LogLevel fallback = LogLevel::kWarn;

  explicit LogConfig(std::string_view spec) {
    while (!spec.empty()) {
      auto rule = spec.substr(0, spec.find(','));
      spec.remove_prefix(std::min(spec.size(), rule.size() + 1));
      auto colon = rule.find(':');
      if (colon == std::string_view::npos) {
        fallback = parse_level(rule);
      } else if (rule.substr(0, colon) == "*") {
        fallback = parse_level(rule.substr(colon + 1));
      } else {
        rules.emplace_back(rule.substr(0, colon), parse_level(rule.substr(colon + 1)));
      }
    }
  }
};

// The process's log: where lines go and which are wanted. It lives for ever, so that threads may
// log during exit.
struct Log {
  std::atomic<const LogConfig*> config;
  int fd = STDERR_FILENO;
  char node[32] = "-";

  Log() {
    const char* spec = std::getenv("KRG_LOG");
    config = new LogConfig(spec ? spec : "");
    if (const char* file = std::getenv("KRG_LOG_FILE")) {
      int opened = ::open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
      if (opened >= 0) fd = opened;
    }
  }
  static Log& the() {
    static Log& log = *new Log;
    return log;
  }
};

}  // namespace

bool log_enabled(std::string_view component, LogLevel level) noexcept {
  const LogConfig& config = *Log::the().config.load(std::memory_order_acquire);
  for (const auto& [name, from] : config.rules)
    if (name == component) return level >= from;
  return level >= config.fallback;
}

void log_line(std::string_view component, LogLevel level, std::string_view text) noexcept {
  static constexpr std::array<const char*, 6> kTags = {"trace", "debug", "info",
                                                       "warn",  "error", ""};
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  localtime_r(&now.tv_sec, &parts);
  char line[2048];
  int length =
      std::snprintf(line, sizeof line, "%02d:%02d:%02d.%06ld krg %s %s %.*s: %.*s\n", parts.tm_hour,
                    parts.tm_min, parts.tm_sec, now.tv_nsec / 1000, Log::the().node,
                    kTags[static_cast<size_t>(level)], static_cast<int>(component.size()),
                    component.data(), static_cast<int>(text.size()), text.data());
  if (length >= static_cast<int>(sizeof line)) {
    length = sizeof line;
    line[sizeof line - 1] = '\n';
  }
  [[maybe_unused]] ssize_t written = ::write(Log::the().fd, line, static_cast<size_t>(length));
}

void set_log_node(std::string_view name) noexcept {
  char* node = Log::the().node;
  size_t n = std::min(name.size(), sizeof Log::the().node - 1);
  std::memcpy(node, name.data(), n);
  node[n] = '\0';
}

void set_log_spec(std::string_view spec) {
  // The old configuration stays: another thread may be reading it, and this happens a few times at
  // the most.
  Log::the().config.store(new LogConfig(spec), std::memory_order_release);
}

}  // namespace krg
