// SPDX-License-Identifier: GPL-2.0-or-later
#include "stream_stat_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <memory>

#include "packed_bytes.h"
#include "process_fds.h"

namespace krg {
namespace {

statx_timestamp timestamp_of(const timespec& time) {
  return {.tv_sec = time.tv_sec, .tv_nsec = static_cast<uint32_t>(time.tv_nsec), .__reserved = 0};
}

// The same attributes in statx(2)'s structure.
struct statx as_statx(const struct stat& from) {
  struct statx to {};
  to.stx_mask = STATX_BASIC_STATS;
  to.stx_blksize = static_cast<uint32_t>(from.st_blksize);
  to.stx_nlink = static_cast<uint32_t>(from.st_nlink);
  to.stx_uid = from.st_uid;
  to.stx_gid = from.st_gid;
  to.stx_mode = static_cast<uint16_t>(from.st_mode);
  to.stx_ino = from.st_ino;
  to.stx_size = static_cast<uint64_t>(from.st_size);
  to.stx_blocks = static_cast<uint64_t>(from.st_blocks);
  to.stx_atime = timestamp_of(from.st_atim);
  to.stx_mtime = timestamp_of(from.st_mtim);
  to.stx_ctime = timestamp_of(from.st_ctim);
  to.stx_rdev_major = major(from.st_rdev);
  to.stx_rdev_minor = minor(from.st_rdev);
  to.stx_dev_major = major(from.st_dev);
  to.stx_dev_minor = minor(from.st_dev);
  return to;
}

// Where the call wants its answer (the structures of stat(2) on x86-64 are the kernel's).
Status write_answer(const SyscallBroker::Call& call, const struct stat& attributes) {
  switch (call.number()) {
    case SYS_fstat:
      return call.write_memory(RemoteAddr{call.arg(1)}, object_bytes(attributes));
    case SYS_newfstatat:
      return call.write_memory(RemoteAddr{call.arg(2)}, object_bytes(attributes));
    default:
      return call.write_memory(RemoteAddr{call.arg(4)}, object_bytes(as_statx(attributes)));
  }
}

// AT_EMPTY_PATH with a path that is not empty means the path.
bool is_of_the_descriptor(const SyscallBroker::Call& call) {
  if (call.number() == SYS_fstat) return true;
  auto path = call.read_string(RemoteAddr{call.arg(1)}, 1);
  return path && path->empty();
}

}  // namespace

StreamStatCalls::StreamStatCalls(SyscallBroker& broker, SessionFs& fs, StreamTree& tree)
    : fs_(fs), tree_(tree) {
  for (int number : {SYS_fstat, SYS_newfstatat, SYS_statx})
    broker.set_handler(number, [this](SyscallBroker::Call call) { handle(std::move(call)); });
}

void StreamStatCalls::handle(SyscallBroker::Call call) {
  if (!fs_.is_serving()) return call.go_on();
  auto identity = fd_identity(call.tid(), static_cast<int>(call.arg(0)));
  if (!identity || identity->device != fs_.device() || !is_of_the_descriptor(call))
    return call.go_on();
  const FileId file = fs_.file_of(StreamTree::kName, identity->inode);
  if (file == 0) return call.go_on();
  auto waiting = std::make_shared<SyscallBroker::Call>(std::move(call));
  tree_.ask_home(file, [waiting](Result<struct stat> attributes) {
    if (!attributes) return waiting->fail(attributes.error().errno_or(EIO));
    if (!waiting->is_valid()) return;
    if (Status written = write_answer(*waiting, *attributes); !written)
      return waiting->fail(EFAULT);
    waiting->succeed(0);
  });
}

}  // namespace krg
