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
