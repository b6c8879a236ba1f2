// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/pipe_ends.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace krg {

bool has_no_other_end(const StolenFd& fd) {
  pollfd polled{fd.copy.get(), 0, 0};
  return poll(&polled, 1, 0) == 1 && (polled.revents & (reads(fd) ? POLLHUP : POLLERR)) != 0;
}

// tee(2) says EAGAIN where somebody might write.
bool has_no_writer(const StolenFd& reader) {
  int own[2];
  if (pipe2(own, O_CLOEXEC) != 0) return false;
  const UniqueFd source(own[0]), target(own[1]);
  return tee(reader.copy.get(), target.get(), 1, SPLICE_F_NONBLOCK) == 0;
}

std::string path_of_fifo(const StolenFd& fd) {
  struct stat found {};
  if (!fd.link.starts_with('/') || lstat(fd.link.c_str(), &found) != 0) return {};
  const bool is_it = found.st_ino == fd.attributes.st_ino && found.st_dev == fd.attributes.st_dev;
  return is_it ? fd.link : std::string();
}

bool has_other_end(pid_t pid, const StolenFd& end) {
  auto fds = steal_fds(pid, WhichFds::kAll);
  if (!fds) return false;
  return std::any_of(fds->begin(), fds->end(), [&](const StolenFd& fd) {
    return fd.link == end.link && (reads(end) ? writes(fd) : reads(fd));
  });
}

Result<std::string> contents_of_pipe(const StolenFd& end, int capacity) {
  UniqueFd opened;
  int source = end.copy.get();
  if (!reads(end)) {
    opened = UniqueFd(
        open(fmt::format("/proc/self/fd/{}", source).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!opened) return errno_error("opening a pipe to read");
    source = opened.get();
  }
  int waiting = 0;
  if (ioctl(source, FIONREAD, &waiting) != 0) return errno_error("FIONREAD of a pipe");
  if (waiting == 0) return std::string();
  int own[2];  // tee(2) copies into a pipe only
  if (pipe2(own, O_CLOEXEC | O_NONBLOCK) != 0) return errno_error("pipe");
  UniqueFd from(own[0]), to(own[1]);
  fcntl(to.get(), F_SETPIPE_SZ, capacity);
  const ssize_t copied = tee(source, to.get(), static_cast<size_t>(waiting), SPLICE_F_NONBLOCK);
  if (copied != waiting) return errno_error("what is in a pipe", copied < 0 ? errno : EMSGSIZE);
  std::string bytes(static_cast<size_t>(waiting), '\0');
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t got = read(from.get(), bytes.data() + done, bytes.size() - done);
    if (got <= 0) return errno_error("what is in a pipe", got < 0 ? errno : EIO);
    done += static_cast<size_t>(got);
  }
  return bytes;
}

}  // namespace krg
