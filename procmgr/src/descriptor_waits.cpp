// SPDX-License-Identifier: GPL-2.0-or-later
#include "descriptor_waits.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "event_fds.h"
#include "krg/runtime/unique_fd.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr unsigned long kMostPolled = 65536;

template <class Value>
std::vector<Value> read_values(pid_t pid, unsigned long at, unsigned long count) {
  std::vector<Value> values(std::min(count, kMostPolled));
  const iovec local{values.data(), values.size() * sizeof(Value)};
  const iovec remote{reinterpret_cast<void*>(at), local.iov_len};
  if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != static_cast<ssize_t>(local.iov_len))
    values.clear();
  return values;
}

bool polls(pid_t pid, const BlockedCall& call, const std::string& link) {
  const auto polled = read_values<pollfd>(pid, call.arguments[0], call.arguments[1]);
  return std::any_of(polled.begin(), polled.end(), [&](const pollfd& one) {
    return (one.events & POLLIN) && links_to(pid, one.fd, link);
  });
}

bool selects(pid_t pid, const BlockedCall& call, const std::string& link) {
  constexpr unsigned long kBits = 8 * sizeof(unsigned long);
  const unsigned long count = call.arguments[0];
  const auto words =
      read_values<unsigned long>(pid, call.arguments[1], (count + kBits - 1) / kBits);
  for (unsigned long number = 0; number < std::min(count, words.size() * kBits); ++number)
    if ((words[number / kBits] >> number % kBits & 1) &&
        links_to(pid, static_cast<int>(number), link))
      return true;
  return false;
}

bool epoll_waits(pid_t pid, const BlockedCall& call, const std::string& link) {
  auto text = read_whole_file(fmt::format("/proc/{}/fdinfo/{}", pid, call.arguments[0]));
  if (!text) return false;
  const auto polled = polled_by(*text);
  return std::any_of(polled.begin(), polled.end(),
                     [&](const PolledFd& one) { return links_to(pid, one.number, link); });
}

bool is_blocked_for(pid_t pid, const BlockedCall& call, const std::string& link) {
  switch (call.number) {
    case SYS_accept:
    case SYS_accept4:
    case SYS_read:
    case SYS_readv:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
      return links_to(pid, static_cast<int>(call.arguments[0]), link);
    case SYS_poll:
    case SYS_ppoll:
    case SYS_restart_syscall:  // a poll that was stopped meanwhile has its arguments still
      return polls(pid, call, link);
    case SYS_select:
    case SYS_pselect6:
      return selects(pid, call, link);
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
      return epoll_waits(pid, call, link);
    default:
      return false;
  }
}

}  // namespace

std::optional<int> find_number_in(const std::string& path, const std::function<bool(int)>& holds) {
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return std::nullopt;
  while (dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
    const int number = std::atoi(entry->d_name);
    if (holds(number)) return number;
  }
  return std::nullopt;
}

bool links_to(pid_t pid, int number, const std::string& link) {
  std::array<char, 64> target;
  const ssize_t length =
      readlink(fmt::format("/proc/{}/fd/{}", pid, number).c_str(), target.data(), target.size());
  return length > 0 && std::string_view(target.data(), static_cast<size_t>(length)) == link;
}

std::optional<int> find_open(pid_t pid, const std::string& link) {
  return find_number_in(fmt::format("/proc/{}/fd", pid),
                        [&](int number) { return links_to(pid, number, link); });
}

std::optional<BlockedCall> blocked_call(pid_t pid, pid_t tid) {
  UniqueFd file(
      open(fmt::format("/proc/{}/task/{}/syscall", pid, tid).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 256> text{};
  if (!file || read(file.get(), text.data(), text.size() - 1) <= 0) return std::nullopt;
  BlockedCall call;
  auto& a = call.arguments;
  const int found = std::sscanf(text.data(), "%ld %lx %lx %lx %lx %lx %lx", &call.number, &a[0],
                                &a[1], &a[2], &a[3], &a[4], &a[5]);
  if (found != 7) return std::nullopt;  // "running"
  return call;
}

bool waits_for(pid_t pid, const std::string& link) {
  return find_number_in(fmt::format("/proc/{}/task", pid),
                        [&](int tid) {
                          const auto call = blocked_call(pid, tid);
                          return call && is_blocked_for(pid, *call, link);
                        })
      .has_value();
}

}  // namespace krg
