// What a process on another node can have of one here: the parts of an ExecSpec that do not come
// from an exec, and the reasons why there can be none. Threads: any; blocks as procfs does.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/exec_spec.h"
#include "text_scan.h"

namespace krg {

// ENOTSUP with the reason.
Error cannot_move(std::string why);

// Where a link of procfs leads to.
Result<std::string> read_link(const std::string& path);

// "Key:\tvalue" lines of /proc/TID/status.
class StatusText {
 public:
  // Errors: ESRCH.
  static Result<StatusText> read(pid_t tid);
  std::string_view value(std::string_view key) const {
    for (std::string_view rest = text_; !rest.empty();) {
      std::string_view line = next_line(rest);
      if (line.size() > key.size() && line.starts_with(key) && line[key.size()] == ':')
        return trimmed(line.substr(key.size() + 1));
    }
    return {};
  }
  template <class Number>
  Number number(std::string_view key, int base = 10) const {
    return to_number<Number>(value(key), base).value_or(Number{});
  }
  // The first three of "real effective saved filesystem".
  template <class Id>
  std::array<Id, 3> ids(std::string_view key) const {
    std::array<Id, 3> found{};
    auto words = split_words(value(key));
    for (size_t i = 0; i < 3 && i < words.size(); ++i)
      found[i] = to_number<Id>(words[i]).value_or(Id{});
    return found;
  }

 private:
  explicit StatusText(std::string text) : text_(std::move(text)) {}
  std::string text_;
};

// The fields of /proc/TID/stat from the third on; proc(5) counts from 1. Errors: ESRCH.
Result<std::vector<std::string>> stat_fields(pid_t tid);
template <class Number>
Number stat_number(const std::vector<std::string>& fields, size_t number_in_proc5) {
  return to_number<Number>(fields.at(number_in_proc5 - 3)).value_or(Number{});
}

// In krgd's own namespaces and that mount namespace (-1: any), and not in a chroot. Errors:
// ENOTSUP.
Status check_namespaces(pid_t tid, int session_mount_ns);

std::vector<gid_t> groups_of(const StatusText& status);
// Errors: ENOTSUP, ESRCH.
Status read_attributes(pid_t tid, const ExecCaller& caller, const StatusText& status,
                       ProcessAttributes& attributes);

}  // namespace krg
