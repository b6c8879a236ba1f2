// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <array>
#include <charconv>
#include <memory>
#include <string_view>
#include <utility>

#include "process_spec.h"
#include "process_status.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr int kOpenCloexec = 02000000;  // O_CLOEXEC as fdinfo prints it (proc(5))

// The number after `key` in an fdinfo file.
int64_t field(std::string_view text, std::string_view key, int base) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return 0;
  text.remove_prefix(at + key.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value, base);
  return value;
}

struct FdInfo {
  int64_t offset = 0;
  int flags = 0;
  bool flocked = false, record_locked = false, leased = false;
};

Result<FdInfo> read_fdinfo(int directory, const char* name) {
  UniqueFd file(openat(directory, name, O_RDONLY | O_CLOEXEC));
  if (!file) return errno_error("fdinfo");
  std::array<char, 4096> text;
  const ssize_t got = read(file.get(), text.data(), text.size());
  if (got < 0) return errno_error("fdinfo");
  const std::string_view view(text.data(), static_cast<size_t>(got));
  FdInfo info{field(view, "pos:", 10), static_cast<int>(field(view, "flags:", 8))};
  // "lock:	1: POSIX  ADVISORY  WRITE 217 00:20:55 0 EOF"
  for (std::string_view rest = view; !rest.empty();) {
    const std::string_view line = next_line(rest);
    if (!line.starts_with("lock:")) continue;
    const auto is_of = [&](std::string_view kind) { return line.find(kind) != line.npos; };
    (is_of(": POSIX ")                         ? info.record_locked
     : is_of(": FLOCK ") || is_of(": OFDLCK ") ? info.flocked
                                               : info.leased) = true;
  }
  return info;
}

// Attributes as the kernel has them cached: statx(2) with AT_STATX_DONT_SYNC asks nobody.
Status read_attributes(StolenFd& fd) {
  struct statx got {};
  if (statx(fd.copy.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &got) != 0)
    return errno_error("statx");
  fd.attributes.st_mode = got.stx_mode;
  fd.attributes.st_dev = makedev(got.stx_dev_major, got.stx_dev_minor);
  fd.attributes.st_rdev = makedev(got.stx_rdev_major, got.stx_rdev_minor);
  fd.attributes.st_ino = got.stx_ino;
  fd.attributes.st_nlink = got.stx_nlink;
  fd.attributes.st_size = static_cast<off_t>(got.stx_size);
  fd.attributes.st_mtim.tv_sec = got.stx_mtime.tv_sec;
  fd.attributes.st_mtim.tv_nsec = got.stx_mtime.tv_nsec;
  return {};
}

// What the copy says.
Status describe_copy(StolenFd& fd) {
  if (Status read = read_attributes(fd); !read) return read;
  // The link of our copy says the same, and the kernel makes fewer entries of procfs for it.
  std::array<char, 4096> target;
  const std::string link = fmt::format("/proc/self/fd/{}", fd.copy.get());
  const ssize_t length = readlink(link.c_str(), target.data(), target.size());
  if (length < 0) return errno_error(fmt::format("link of descriptor {}", fd.number));
  fd.link.assign(target.data(), static_cast<size_t>(length));
  return {};
}

Status steal_one(int pidfd, StolenFd& fd) {
  fd.copy = UniqueFd(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd, fd.number, 0)));
  if (!fd.copy) return errno_error(fmt::format("pidfd_getfd of descriptor {}", fd.number));
  return describe_copy(fd);
}

void set_info(StolenFd& fd, const FdInfo& info) {
  fd.close_on_exec = (info.flags & kOpenCloexec) != 0;
  fd.flags = info.flags & ~kOpenCloexec;
  fd.offset = info.offset;
  fd.flocked = info.flocked;
  fd.record_locked = info.record_locked;
  fd.leased = info.leased;
}

}  // namespace

Result<std::vector<StolenFd>> steal_fds(pid_t pid, WhichFds which) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd) return errno_error(fmt::format("pidfd_open of {}", pid));
  const std::string path = fmt::format("/proc/{}/fdinfo", pid);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return errno_error("open of " + path);
  std::vector<StolenFd> stolen;
  while (dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    auto info = read_fdinfo(dirfd(directory.get()), entry->d_name);
    if (!info) return info.error();
    StolenFd fd;
    set_info(fd, *info);
    if (fd.close_on_exec && which == WhichFds::kKeptByExec) continue;
    fd.number = std::atoi(entry->d_name);
    if (Status one = steal_one(pidfd.get(), fd); !one) return one.error();
    stolen.push_back(std::move(fd));
  }
  return stolen;
}

Result<StolenFd> describe_own_fd(UniqueFd own) {
  StolenFd fd;
  fd.number = own.get();
  auto info = read_fdinfo(AT_FDCWD, fmt::format("/proc/self/fdinfo/{}", fd.number).c_str());
  if (!info) return info.error();
  set_info(fd, *info);
  fd.copy = std::move(own);
  if (Status described = describe_copy(fd); !described) return described.error();
  return fd;
}

bool holds_record_locks(pid_t pid) {
  const std::string path = fmt::format("/proc/{}/fdinfo", pid);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  if (!directory) return false;
  while (dirent* entry = readdir(directory.get())) {
    if (entry->d_name[0] == '.') continue;
    auto info = read_fdinfo(dirfd(directory.get()), entry->d_name);
    if (info && info->record_locked) return true;
  }
  return false;
}

Result<FdIdentity> fd_identity(pid_t tid, int number) {
  // A thread's descriptors are its process's; pidfd_getfd takes the process only.
  const std::string path = fmt::format("/proc/{}/fd/{}", tid, number);
  struct statx got {};
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC, STATX_INO, &got) != 0)
    return errno_error("statx of " + path);
  return FdIdentity{makedev(got.stx_dev_major, got.stx_dev_minor), got.stx_ino};
}

Result<FdIdentity> own_fd_identity(int fd) {
  struct statx got {};
  if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &got) != 0)
    return errno_error("statx");
  return FdIdentity{makedev(got.stx_dev_major, got.stx_dev_minor), got.stx_ino};
}

Result<std::string> link_of_fd(pid_t tid, int number) {
  auto link = read_link(fmt::format("/proc/{}/fd/{}", tid, number));
  if (!link) return errno_error("no such descriptor", EBADF);
  return link;
}

std::vector<int> descriptors_of(pid_t tid, const std::function<bool(const FdIdentity&)>& is_meant) {
  std::vector<int> numbers;
  const std::string path = fmt::format("/proc/{}/fd", tid);
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
    if (entry->d_name[0] == '.') continue;
    const int number = std::atoi(entry->d_name);
    auto found = fd_identity(tid, number);
    if (found && is_meant(*found)) numbers.push_back(number);
  }
  return numbers;
}

Result<int64_t> offset_of_fd(pid_t tid, int number) {
  auto info = read_fdinfo(AT_FDCWD, fmt::format("/proc/{}/fdinfo/{}", tid, number).c_str());
  if (!info) return info.error();
  return info->offset;
}

unsigned count_open(pid_t pid, const FdIdentity& file) {
  const auto is_meant = [&file](const FdIdentity& found) {
    return found.device == file.device && found.inode == file.inode;
  };
  return static_cast<unsigned>(descriptors_of(pid, is_meant).size());
}

Result<UniqueFd> steal_fd(pid_t tid, int number) {
  auto status = read_process_status(tid);
  if (!status) return status.error();
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, status->pid, 0)));
  if (!pidfd) return errno_error("pidfd_open");
  UniqueFd copy(static_cast<int>(syscall(SYS_pidfd_getfd, pidfd.get(), number, 0)));
  if (!copy) return errno_error(fmt::format("pidfd_getfd of descriptor {}", number));
  return copy;
}

bool is_listening(int fd) {
  int value = 0;
  socklen_t size = sizeof value;
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value == 1;
}

bool is_listening(const StolenFd& fd) {
  return S_ISSOCK(fd.attributes.st_mode) && is_listening(fd.copy.get());
}

std::string describe_fd(const StolenFd& fd) {
  static constexpr std::pair<std::string_view, std::string_view> kAnonymous[] = {
      {"anon_inode:[eventpoll]", "an epoll instance"},
      {"anon_inode:[eventfd", "an eventfd"},
      {"anon_inode:[timerfd]", "a timerfd"},
      {"anon_inode:[signalfd]", "a signalfd"},
      {"anon_inode:inotify", "an inotify instance"},
      {"anon_inode:[fanotify]", "a fanotify instance"},
      {"anon_inode:[io_uring]", "an io_uring"},
      {"anon_inode:[pidfd]", "a pidfd"},
      {"pidfd:", "a pidfd"},
      {"anon_inode:[userfaultfd]", "a userfaultfd"},
      {"anon_inode:[perf_event]", "a perf event"},
      {"anon_inode:seccomp notify", "a seccomp listener"},
      {"/memfd:", "a memfd"},
  };
  for (auto& [prefix, name] : kAnonymous)
    if (fd.link.starts_with(prefix)) return std::string(name);
  if (S_ISSOCK(fd.attributes.st_mode)) return "a socket";
  if (S_ISFIFO(fd.attributes.st_mode)) return "a pipe";
  return fd.link;
}

}  // namespace krg
