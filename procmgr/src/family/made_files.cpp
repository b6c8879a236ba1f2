// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/made_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
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

constexpr int kOpenFlags = O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

// Nobody need have the other end.
Result<UniqueFd> open_fifo(const std::string& path, int flags) {
  UniqueFd fifo(open(path.c_str(), flags | O_NONBLOCK | O_CLOEXEC));
  if (!fifo) return errno_error("the FIFO " + path);
  struct stat found {};
  if (fstat(fifo.get(), &found) != 0 || !S_ISFIFO(found.st_mode))
    return errno_error(path + " is no FIFO any more", ENOTSUP);
  return fifo;
}

Status fill(int writer, const FamilyPipe& pipe) {
  fcntl(writer, F_SETPIPE_SZ, static_cast<int>(pipe.capacity));
  return write_all(writer, pipe.contents);
}

Result<PipeEnds> make_fifo(const FamilyPipe& pipe) {
  const char* path = pipe.path.c_str();
  if (mkfifo(path, 0) == 0) {
    if (chmod(path, pipe.mode) != 0) return errno_error("the FIFO " + pipe.path);
  } else if (errno != EEXIST) {
    return errno_error("the FIFO " + pipe.path);
  }
  if (pipe.is_quiet) return PipeEnds{};
  auto both = open_fifo(pipe.path, O_RDWR);
  if (!both) return both.error();
  if (auto filled = fill(both->get(), pipe); !filled) return filled.error();
  return PipeEnds{std::move(*both), {}};
}

}  // namespace

Result<UniqueFd> open_again(int fd, int flags) {
  UniqueFd opened(
      open(fmt::format("/proc/self/fd/{}", fd).c_str(), (flags & kOpenFlags) | O_CLOEXEC));
  if (!opened) return errno_error("opening a pipe or file again");
  return opened;
}

Result<PipeEnds> make_pipe(const FamilyPipe& pipe) {
  if (!pipe.path.empty())
    if (auto fifo = make_fifo(pipe); fifo || fifo.error().errno_or(0) != ENOENT) return fifo;
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return errno_error("pipe");
  PipeEnds made{UniqueFd(ends[0]), UniqueFd(ends[1])};
  if (auto filled = fill(ends[1], pipe); !filled) return filled.error();
  return made;
}

// Opened by way of one that could write, a quiet FIFO would be at its end at once.
Result<UniqueFd> open_end(const FamilyPipe& pipe, const PipeEnds& made, int flags) {
  if (made.reader) return open_again(made.reader.get(), flags);
  auto opened = open_fifo(pipe.path, flags & kOpenFlags);
  if (opened && fcntl(opened->get(), F_SETFL, flags & kOpenFlags) != 0)
    return errno_error("the FIFO " + pipe.path);
  return opened;
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
