// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/made_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace krg {
namespace {

Status write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put <= 0) return errno_error("writing to a pipe or file", put < 0 ? errno : EIO);
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

}  // namespace

Result<UniqueFd> open_again(int fd, int flags) {
  constexpr int kOpenFlags = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;
  UniqueFd opened(
      open(fmt::format("/proc/self/fd/{}", fd).c_str(), (flags & kOpenFlags) | O_CLOEXEC));
  if (!opened) return errno_error("opening a pipe or file again");
  return opened;
}

Result<PipeEnds> make_pipe(const FamilyPipe& pipe) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return errno_error("pipe");
  PipeEnds made{UniqueFd(ends[0]), UniqueFd(ends[1])};
  fcntl(ends[1], F_SETPIPE_SZ, static_cast<int>(pipe.capacity));
  if (auto put = write_all(ends[1], pipe.contents); !put) return put.error();
  return made;
}

Result<UniqueFd> fill_again(int made, const FamilyFile& file) {
  if (ftruncate(made, static_cast<off_t>(file.bytes)) != 0 || lseek(made, 0, SEEK_SET) != 0)
    return errno_error("a file without a name");
  if (auto put = write_all(made, file.contents); !put) return put.error();
  return share_again(made, file);
}

Result<UniqueFd> share_again(int made, const FamilyFile& file) {
  auto again = open_again(made, file.flags);
  if (again && lseek(again->get(), file.offset, SEEK_SET) < 0)
    return errno_error("a file without a name");
  return again;
}

Result<UniqueFd> make_memory(uint64_t bytes) {
  UniqueFd made(static_cast<int>(syscall(SYS_memfd_create, "krg-shared", 1)));
  if (!made || ftruncate(made.get(), static_cast<off_t>(bytes)) != 0)
    return errno_error("shared memory");
  return made;
}

Result<UniqueFd> make_deleted(const FamilyFile& file) {
  const std::string folder = file.path.substr(0, file.path.rfind('/'));
  UniqueFd made(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (!made) made = UniqueFd(static_cast<int>(syscall(SYS_memfd_create, "krg-deleted", 1)));
  if (!made) return errno_error("a file without a name");
  return fill_again(made.get(), file);
}

}  // namespace krg
