// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/listener_habits.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/kcmp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "image/install_parts.h"
#include "krg/procmgr/process_table.h"
#include "process_fds.h"
#include "process_status.h"
#include "whole_file.h"

namespace krg {
namespace {

bool closes_on_exec(pid_t pid, int number) {
  constexpr unsigned long kCloseOnExec = 02000000;  // of the flags in fdinfo, proc(5)
  auto text = read_whole_file(fmt::format("/proc/{}/fdinfo/{}", pid, number));
  const char* flags = text ? status_value(*text, "flags") : nullptr;
  return flags && (std::strtoul(flags, nullptr, 8) & kCloseOnExec);
}

// Of a pseudo-terminal.
bool is_master(std::string_view link) {
  return link == "/dev/ptmx" || link == "/dev/pts/ptmx";
}

// What tells the service that a socket belongs to: its port, or its path. Empty: it has none.
std::string local_service(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  // Whoever listens at all addresses has connections at one.
  if (address.ss_family == AF_INET || address.ss_family == AF_INET6)
    return fmt::format("port {}", reinterpret_cast<const sockaddr_in&>(address).sin_port);
  if (address.ss_family != AF_UNIX || size <= sizeof address.ss_family) return {};
  return {reinterpret_cast<const char*>(&address), size};
}

// It may have others of its own, by the same numbers.
bool have_same_events(pid_t forker, pid_t child) {
  const auto theirs = server_sockets(forker).events, its = server_sockets(child).events;
  for (const ListeningFd& a : theirs)
    for (const ListeningFd& b : its)
      if (syscall(SYS_kcmp, forker, child, KCMP_FILE, a.number, b.number) == 0) return true;
  return false;
}

}  // namespace

constexpr size_t kMostForkers = 1024;  // that are remembered

// Most descriptors are neither: only those are looked at.
ServerSockets server_sockets(pid_t pid) {
  ServerSockets found;
  std::vector<std::string> addresses, connected;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pid), error)) {
    const auto link = std::filesystem::read_symlink(entry.path(), error);
    if (error) continue;
    const int number = std::atoi(entry.path().filename().c_str());
    if (link == "anon_inode:[eventpoll]" || link == "anon_inode:[timerfd]" ||
        is_master(link.native()))
      found.events.push_back({number, closes_on_exec(pid, number)});
    if (!link.native().starts_with("socket:")) continue;
    auto copy = steal_fd(pid, number);
    if (!copy) continue;
    const bool listens = is_listening(copy->get());
    (listens ? addresses : connected).push_back(local_service(copy->get()));
    if (listens) found.listening.push_back({number, closes_on_exec(pid, number)});
  }
  for (const std::string& address : connected)
    found.has_connection |=
        !address.empty() && std::count(addresses.begin(), addresses.end(), address) > 0;
  return found;
}

Status replace_by_null(FrozenProcess& process, const std::vector<ListeningFd>& fds) {
  static constexpr char kNull[] = "/dev/null";
  auto scratch = process.scratch();
  if (!scratch) return scratch.error();
  Status written = process.write(*scratch, std::span(kNull));
  int64_t opened = -EIO;
  if (written)
    opened = process.call(SYS_openat, {static_cast<uint64_t>(AT_FDCWD), scratch->value,
                                       uint64_t{O_RDWR | O_CLOEXEC}});
  process.drop_scratch();
  if (opened < 0) return done_by_call("open of /dev/null", opened);
  Status replaced;
  for (const ListeningFd& fd : fds) {
    const uint64_t flags = fd.close_on_exec ? O_CLOEXEC : 0;
    const int64_t number = process.call(
        SYS_dup3, {static_cast<uint64_t>(opened), static_cast<uint64_t>(fd.number), flags});
    if (number < 0) replaced = done_by_call("dup3", number);
  }
  process.call(SYS_close, {static_cast<uint64_t>(opened)});
  return replaced;
}

ListenerHabits::Expects ListenerHabits::expects(pid_t forker) const {
  auto found = seen_.find(forker);
  if (found == seen_.end() || found->second.start_time != process_start_time(forker))
    return Expects::kNothing;
  if (found->second.kept) return Expects::kKept;
  return found->second.closed >= kSure ? Expects::kClosed : Expects::kNothing;
}

bool ListenerHabits::look_at(pid_t forker, pid_t child, bool is_last_look) {
  auto status = read_process_stat(child);
  const uint64_t start_time = process_start_time(forker);
  if (!status || status->is_zombie() || start_time == 0) return true;
  const bool closed = of_ == Of::kListeners ? server_sockets(child).listening.empty()
                                            : !have_same_events(forker, child);
  if (!closed && !is_last_look) return false;
  if (seen_.size() >= kMostForkers && !seen_.contains(forker)) seen_.clear();
  Seen& seen = seen_[forker];
  if (seen.start_time != start_time) seen = {start_time};
  seen.closed += closed;
  seen.kept |= !closed;
  return true;
}

}  // namespace krg
