// Logging: `KRG_LOG=kddm:trace,*:warn` chooses a level per component. Lines go to stderr or to the
// file that KRG_LOG_FILE names, one write(2) each, stamped with time, node and component. Any
// thread may log. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fmt/core.h>

#include <string_view>

namespace krg {

enum class LogLevel : int { kTrace, kDebug, kInfo, kWarn, kError, kOff };

// True when a line of this component and level would be written; cheap enough for hot paths.
bool log_enabled(std::string_view component, LogLevel level) noexcept;
// Writes one line. Never fails, never throws.
void log_line(std::string_view component, LogLevel level, std::string_view text) noexcept;
// Names this process's node in later lines ("n2"); called once, before threads start.
void set_log_node(std::string_view name) noexcept;
// Overrides KRG_LOG; for tests.
void set_log_spec(std::string_view spec);

template <class... Args>
void log(std::string_view component, LogLevel level, fmt::format_string<Args...> format,
         Args&&... args) {
  if (!log_enabled(component, level)) return;
  log_line(component, level, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_trace(std::string_view c, fmt::format_string<Args...> f, Args&&... a) {
  log(c, LogLevel::kTrace, f, std::forward<Args>(a)...);
}
template <class... Args>
void log_debug(std::string_view c, fmt::format_string<Args...> f, Args&&... a) {
  log(c, LogLevel::kDebug, f, std::forward<Args>(a)...);
}
template <class... Args>
void log_info(std::string_view c, fmt::format_string<Args...> f, Args&&... a) {
  log(c, LogLevel::kInfo, f, std::forward<Args>(a)...);
}
template <class... Args>
void log_warn(std::string_view c, fmt::format_string<Args...> f, Args&&... a) {
  log(c, LogLevel::kWarn, f, std::forward<Args>(a)...);
}
template <class... Args>
void log_error(std::string_view c, fmt::format_string<Args...> f, Args&&... a) {
  log(c, LogLevel::kError, f, std::forward<Args>(a)...);
}

}  // namespace krg
