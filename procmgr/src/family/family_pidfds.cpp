// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_pidfds.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/sched.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <optional>

#include "event_fds.h"
#include "family/family_watches.h"
#include "image/install_parts.h"
#include "raw_syscall.h"
#include "text_scan.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr pid_t kEnded = -1;  // as the kernel tells of one that has been waited for

// The line "Pid:	12" of fdinfo. None: it is not there.
std::optional<pid_t> process_in(std::string_view text) {
  for (std::string_view rest = text; !rest.empty();) {
    std::string_view line = next_line(rest);
    if (line.starts_with("Pid:")) return to_number<pid_t>(trimmed(line.substr(4)));
  }
  return std::nullopt;
}

// A child of krgd's that ends at once; nobody else waits for one that has no signal for its end.
Result<UniqueFd> pidfd_of_ended() {
  int pidfd = -1;
  clone_args arguments{};
  arguments.flags = CLONE_PIDFD;
  arguments.pidfd = raw_address(&pidfd);
  const int64_t child = raw_call(SYS_clone3, raw_address(&arguments), sizeof arguments);
  if (child == 0) raw_call(SYS_exit_group, 0);
  if (child < 0) return errno_error("a pidfd", static_cast<int>(-child));
  UniqueFd made(pidfd);
  while (waitpid(static_cast<pid_t>(child), nullptr, __WALL) < 0 && errno == EINTR) continue;
  return made;
}

Status open_one(FrozenProcess& member, pid_t process, int flags, uint64_t slot) {
  const int64_t opened = member.call(
      SYS_pidfd_open, {static_cast<uint64_t>(process), static_cast<uint64_t>(flags & O_NONBLOCK)});
  if (opened < 0)
    return errno_error(fmt::format("a pidfd of process {}", process), static_cast<int>(-opened));
  return move_descriptor(member, static_cast<uint64_t>(opened), slot, 0);
}

}  // namespace

Result<std::string> describe_pidfd(const StolenFd& pidfd, const std::set<pid_t>& members) {
  auto own = process_of_pidfd(pidfd);
  if (!own) return own.error();
  if (*own != kEnded && !members.contains(*own))
    return errno_error(*own == 0 ? std::string("a pidfd of a process outside of the session")
                                 : fmt::format("a pidfd of process {}, which is none of the "
                                               "application's",
                                               *own),
                       ENOTSUP);
  return fmt::format("Pid:\t{}\n", *own);
}

Result<UniqueFd> make_pidfd(const FamilyFile& file) {
  const auto process = process_in(file.contents);
  if (!process || (*process != kEnded && *process <= 1)) return errno_error("a pidfd", EPROTO);
  if (*process != kEnded) {
    UniqueFd stand_in(eventfd(0, EFD_CLOEXEC));
    if (!stand_in) return errno_error("a pidfd");
    return stand_in;
  }
  auto made = pidfd_of_ended();
  if (made && (file.flags & O_NONBLOCK)) fcntl(made->get(), F_SETFL, O_NONBLOCK);
  return made;
}

Status open_pidfds(const ProcessFamily& family, int first_slot,
                   const std::function<FrozenProcess&(uint32_t member)>& process) {
  for (uint32_t i = 0; i < family.files.size(); ++i) {
    const FamilyFile& file = family.files[i];
    const auto of = is_event_of(file, EventKind::kPidfd) ? process_in(file.contents) : std::nullopt;
    if (!of || *of == kEnded) continue;
    for (uint32_t member = 0; member < family.members.size(); ++member) {
      if (family.members[member].has_ended()) continue;
      auto opened =
          open_one(process(member), *of, file.flags, static_cast<uint64_t>(first_slot) + i);
      if (!opened) return opened;
    }
  }
  return {};
}

}  // namespace krg
