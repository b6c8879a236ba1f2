// SPDX-License-Identifier: GPL-2.0-or-later
#include "plain_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <memory>

namespace krg {
namespace {

// Makes this thread, and only it, act as `user`: the raw system calls change one thread where
// glibc's functions change all of them (setresuid(2), "C library/kernel differences"). Effective
// capabilities go with the effective uid and come back with it, since the saved uid stays.
class ActAs {
 public:
  explicit ActAs(FileUser user) {
    if (user.uid == geteuid()) return;
    own_uid_ = geteuid();
    own_gid_ = getegid();
    changed_ = syscall(SYS_setresgid, -1, user.gid, -1) == 0 &&
               syscall(SYS_setresuid, -1, user.uid, -1) == 0;
    if (!changed_) {
      error_ = errno;
      restore();
    }
  }
  ~ActAs() {
    if (changed_) restore();
  }
  ActAs(const ActAs&) = delete;
  ActAs& operator=(const ActAs&) = delete;

  // False when this krgd cannot act as that user (it serves one user only).
  Status status() const {
    return error_ == 0 ? Status{} : Status{errno_error("act as another user", error_)};
  }

 private:
  void restore() const {
    check(syscall(SYS_setresuid, -1, own_uid_, -1) == 0 &&
              syscall(SYS_setresgid, -1, own_gid_, -1) == 0,
          "a worker gets its own identity back");
  }

  uid_t own_uid_ = 0;
  gid_t own_gid_ = 0;
  bool changed_ = false;
  int error_ = 0;
};

Result<std::string> read_to_end(int fd) {
  std::string text;
  std::array<char, 16384> piece;
  for (;;) {
    ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got == 0) return text;
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno_error("read");
    }
    text.append(piece.data(), static_cast<size_t>(got));
    if (text.size() > kMaxPlainFileBytes) return errno_error("read", EFBIG);
  }
}

struct CloseDir {
  void operator()(DIR* directory) const { closedir(directory); }
};

}  // namespace

Result<PlainFiles> PlainFiles::open(const std::string& directory) {
  UniqueFd fd(::open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_error("open " + directory);
  return PlainFiles(std::move(fd));
}

Result<UniqueFd> PlainFiles::open_below(const std::string& path, int flags) const {
  open_how how{};
  how.flags = static_cast<uint64_t>(flags | O_CLOEXEC | O_NOFOLLOW);
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV;
  UniqueFd fd(static_cast<int>(syscall(SYS_openat2, directory_->get(),
                                       path.empty() ? "." : path.c_str(), &how, sizeof how)));
  if (!fd) return errno_error("open " + path);
  return fd;
}

Result<std::string> PlainFiles::read(FileUser user, const std::string& path) const {
  ActAs as(user);
  if (auto status = as.status(); !status) return status.error();
  auto fd = open_below(path, O_RDONLY | O_NONBLOCK);
  if (!fd) return fd.error();
  return read_to_end(fd->get());
}

Result<size_t> PlainFiles::write(FileUser user, const std::string& path,
                                 std::string_view data) const {
  ActAs as(user);
  if (auto status = as.status(); !status) return status.error();
  auto fd = open_below(path, O_WRONLY | O_NONBLOCK);
  if (!fd) return fd.error();
  ssize_t written = ::write(fd->get(), data.data(), data.size());
  if (written < 0) return errno_error("write " + path);
  return static_cast<size_t>(written);
}

Result<struct stat> PlainFiles::attributes(FileUser user, const std::string& path) const {
  ActAs as(user);
  if (auto status = as.status(); !status) return status.error();
  auto fd = open_below(path, O_PATH);
  if (!fd) return fd.error();
  struct stat attributes {};
  if (fstat(fd->get(), &attributes) < 0) return errno_error("stat " + path);
  return attributes;
}

Result<std::string> PlainFiles::link_target(FileUser user, const std::string& path) const {
  ActAs as(user);
  if (auto status = as.status(); !status) return status.error();
  auto fd = open_below(path, O_PATH);
  if (!fd) return fd.error();
  std::array<char, 4096> target;
  // An empty path reads the link that the descriptor itself names (readlink(2), Linux 2.6.39).
  ssize_t length = readlinkat(fd->get(), "", target.data(), target.size());
  if (length < 0) return errno_error("readlink " + path, errno == ENOENT ? EINVAL : errno);
  return std::string(target.data(), static_cast<size_t>(length));
}

Result<std::vector<FsDirEntry>> PlainFiles::list(FileUser user, const std::string& path) const {
  ActAs as(user);
  if (auto status = as.status(); !status) return status.error();
  auto fd = open_below(path, O_RDONLY | O_DIRECTORY);
  if (!fd) return fd.error();
  std::unique_ptr<DIR, CloseDir> directory(fdopendir(fd->get()));
  if (!directory) return errno_error("list " + path);
  fd->release();
  std::vector<FsDirEntry> entries;
  errno = 0;
  while (const dirent* entry = readdir(directory.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") entries.push_back({std::move(name), DTTOIF(entry->d_type)});
  }
  if (errno != 0) return errno_error("list " + path);
  return entries;
}

}  // namespace krg
