// SPDX-License-Identifier: GPL-2.0-or-later
#include "task_memory.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace krg {
namespace {

constexpr size_t kMaxPieces = 512;  // a call; the kernel takes IOV_MAX, 1024

// What of the pieces has not been transferred.
class Remaining {
 public:
  explicit Remaining(std::span<const MemoryPiece> pieces) {
    for (const MemoryPiece& piece : pieces)
      if (piece.bytes > 0)
        vectors_.push_back({reinterpret_cast<void*>(piece.at.value), piece.bytes});
  }
  bool empty() const { return at_ == vectors_.size(); }
  std::span<const iovec> next() const {
    return std::span(vectors_).subspan(at_, std::min(kMaxPieces, vectors_.size() - at_));
  }
  size_t next_bytes() const {
    size_t bytes = 0;
    for (const iovec& vector : next()) bytes += vector.iov_len;
    return bytes;
  }
  MemoryPiece first() const {
    return {{reinterpret_cast<uint64_t>(vectors_[at_].iov_base)}, vectors_[at_].iov_len};
  }
  void advance(size_t bytes) {
    while (bytes > 0) {
      iovec& vector = vectors_[at_];
      const size_t part = std::min(bytes, vector.iov_len);
      vector.iov_base = static_cast<char*>(vector.iov_base) + part;
      vector.iov_len -= part;
      bytes -= part;
      if (vector.iov_len == 0) ++at_;
    }
  }

 private:
  std::vector<iovec> vectors_;
  size_t at_ = 0;
};

}  // namespace

Result<TaskMemory> TaskMemory::open(pid_t task) {
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, task, 0)));
  if (!pidfd) return errno_error("pidfd_open");
  UniqueFd memory(::open(fmt::format("/proc/{}/mem", task).c_str(), O_RDWR | O_CLOEXEC));
  if (!memory)
    return errno_error(fmt::format("/proc/{}/mem", task), errno == ENOENT ? ESRCH : errno);
  TaskMemory opened(task, std::move(pidfd), std::move(memory));
  if (Status alive = opened.check_alive(); !alive) return alive.error();
  return opened;
}

// Its pid cannot have become another task's before this succeeds.
Status TaskMemory::check_alive() const {
  if (syscall(SYS_pidfd_send_signal, pidfd_.get(), 0, nullptr, 0) != 0)
    return errno_error("the task has ended", ESRCH);
  return {};
}

Status TaskMemory::read(std::span<const MemoryPiece> pieces, std::span<std::byte> into) const {
  return transfer(Way::kRead, pieces, into.data());
}

Status TaskMemory::write(std::span<const MemoryPiece> pieces,
                         std::span<const std::byte> from) const {
  return transfer(Way::kWrite, pieces, const_cast<std::byte*>(from.data()));  // only read
}

Status TaskMemory::transfer(Way way, std::span<const MemoryPiece> pieces, std::byte* bytes) const {
  for (Remaining remaining(pieces); !remaining.empty();) {
    const std::span<const iovec> remote = remaining.next();
    iovec local{bytes, remaining.next_bytes()};
    const ssize_t done = way == Way::kRead
                             ? process_vm_readv(task_, &local, 1, remote.data(), remote.size(), 0)
                             : process_vm_writev(task_, &local, 1, remote.data(), remote.size(), 0);
    if (done < 0 && errno != EFAULT) return errno_error("memory of another task");
    bytes += std::max<ssize_t>(done, 0);
    remaining.advance(static_cast<size_t>(std::max<ssize_t>(done, 0)));
    if (done == static_cast<ssize_t>(local.iov_len)) continue;
    // The mapping does not allow it, which a tracer may pass over.
    const MemoryPiece refused = remaining.first();
    if (Status forced = transfer_by_file(way, refused, bytes); !forced) return forced;
    bytes += refused.bytes;
    remaining.advance(refused.bytes);
  }
  return check_alive();
}

Status TaskMemory::transfer_by_file(Way way, MemoryPiece piece, std::byte* bytes) const {
  const auto at = static_cast<off_t>(piece.at.value);
  const ssize_t done = way == Way::kRead ? pread(memory_.get(), bytes, piece.bytes, at)
                                         : pwrite(memory_.get(), bytes, piece.bytes, at);
  if (done == static_cast<ssize_t>(piece.bytes)) return {};
  if (Status alive = check_alive(); !alive) return alive;
  return errno_error(fmt::format("memory of another task at {:#x}", piece.at.value), EFAULT);
}

}  // namespace krg
