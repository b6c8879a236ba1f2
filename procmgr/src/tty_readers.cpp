// SPDX-License-Identifier: GPL-2.0-or-later
#include "tty_readers.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// True as soon as `holds` says so of a numeric entry of the directory.
bool any_number_in(const std::string& path, const std::function<bool(int)>& holds) {
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return false;
  while (dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
    if (holds(std::atoi(entry->d_name))) return true;
  }
  return false;
}

bool is_tty(int pid, int fd, const std::string& tty) {
  std::array<char, 64> target;
  const ssize_t length =
      readlink(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), target.data(), target.size());
  return length > 0 && std::string_view(target.data(), static_cast<size_t>(length)) == tty;
}

bool has_open(int pid, const std::string& tty) {
  return any_number_in(fmt::format("/proc/{}/fd", pid),
                       [&](int fd) { return is_tty(pid, fd, tty); });
}

enum class Wait { kNone, kPoll, kRead };

Wait wait_of(int pid, int tid, const std::string& tty) {
  UniqueFd file(
      open(fmt::format("/proc/{}/task/{}/syscall", pid, tid).c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 256> text{};
  if (!file || read(file.get(), text.data(), text.size() - 1) <= 0) return Wait::kNone;
  long number = -1;
  unsigned long first = 0;
  if (std::sscanf(text.data(), "%ld %lx", &number, &first) != 2) return Wait::kNone;  // "running"
  switch (number) {
    case SYS_read:
    case SYS_readv:
      return is_tty(pid, static_cast<int>(first), tty) ? Wait::kRead : Wait::kNone;
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
      return has_open(pid, tty) ? Wait::kPoll : Wait::kNone;
    default:
      return Wait::kNone;
  }
}

}  // namespace

std::vector<TtyReaders> find_tty_readers(const std::string& tty) {
  std::vector<TtyReaders> found;
  any_number_in("/proc", [&](int pid) {
    any_number_in(fmt::format("/proc/{}/task", pid), [&](int tid) {
      const Wait wait = wait_of(pid, tid, tty);
      if (wait != Wait::kNone) found.push_back({getpgid(pid), wait == Wait::kRead});
      return false;
    });
    return false;
  });
  return found;
}

}  // namespace krg
