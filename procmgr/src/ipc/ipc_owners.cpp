// SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc_owners.h"

#include <fmt/format.h>

#include <algorithm>

namespace krg {

TakesIpc takes_ipc_of(std::set<pid_t> members, std::set<pid_t> others) {
  return [members = std::move(members), others = std::move(others)](
             std::string_view what, const std::vector<pid_t>& users) -> Result<bool> {
    if (others.empty()) return true;
    const auto user =
        std::find_if(users.begin(), users.end(), [&](pid_t pid) { return others.contains(pid); });
    const bool is_members =
        std::any_of(users.begin(), users.end(), [&](pid_t pid) { return members.contains(pid); });
    if (is_members && user == users.end()) return true;
    if (!is_members && user != users.end()) return false;
    if (is_members)
      return errno_error(
          fmt::format("{}: process {} of another application has used it, too", what, *user),
          ENOTSUP);
    return errno_error(
        fmt::format("{}: nothing tells whether it is this application's or that of other "
                    "processes of this system (ipcrm(1) removes what nobody needs)",
                    what),
        ENOTSUP);
  };
}

}  // namespace krg
