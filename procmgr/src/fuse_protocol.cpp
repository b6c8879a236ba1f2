// SPDX-License-Identifier: GPL-2.0-or-later
#include "fuse_protocol.h"

#include <cmath>
#include <limits>

namespace krg {

fuse_attr protocol_attributes(uint64_t node, const struct stat& from) {
  fuse_attr to{};
  to.ino = node;
  to.size = static_cast<uint64_t>(from.st_size);
  to.blocks = static_cast<uint64_t>(from.st_blocks);
  to.atime = static_cast<uint64_t>(from.st_atim.tv_sec);
  to.mtime = static_cast<uint64_t>(from.st_mtim.tv_sec);
  to.ctime = static_cast<uint64_t>(from.st_ctim.tv_sec);
  to.atimensec = static_cast<uint32_t>(from.st_atim.tv_nsec);
  to.mtimensec = static_cast<uint32_t>(from.st_mtim.tv_nsec);
  to.ctimensec = static_cast<uint32_t>(from.st_ctim.tv_nsec);
  to.mode = from.st_mode;
  to.nlink = static_cast<uint32_t>(from.st_nlink);
  to.uid = from.st_uid;
  to.gid = from.st_gid;
  to.rdev = static_cast<uint32_t>(from.st_rdev);
  to.blksize = static_cast<uint32_t>(from.st_blksize);
  return to;
}

void set_valid(double valid_s, uint64_t& seconds, uint32_t& nanoseconds) {
  const double whole = std::floor(valid_s);
  seconds = static_cast<uint64_t>(whole);
  nanoseconds = static_cast<uint32_t>((valid_s - whole) * 1e9);
}

fuse_open_out protocol_open(const FsOpened& opened) {
  fuse_open_out out{};
  out.fh = opened.handle;
  if (opened.stream) out.open_flags |= FOPEN_STREAM | FOPEN_NONSEEKABLE;
  if (opened.direct_io) out.open_flags |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
  // Bit 5 is ignored by kernels before 5.16: they flush, which the tree's flush() answers.
  if (!opened.flush) out.open_flags |= FOPEN_NOFLUSH;
  return out;
}

namespace {
constexpr uint64_t kToTheEnd = std::numeric_limits<int64_t>::max();  // the kernel's OFFSET_MAX
}

fuse_file_lock to_protocol(const RecordLock& lock) {
  const auto start = static_cast<uint64_t>(lock.start);
  return {.start = start,
          .end = lock.length == 0 ? kToTheEnd : start + static_cast<uint64_t>(lock.length) - 1,
          .type = static_cast<uint32_t>(lock.type),
          .pid = static_cast<uint32_t>(lock.pid)};
}

RecordLock from_protocol(const fuse_file_lock& lock) {
  return {.start = static_cast<int64_t>(lock.start),
          .length = lock.end >= kToTheEnd ? 0 : static_cast<int64_t>(lock.end - lock.start + 1),
          .type = static_cast<int32_t>(lock.type),
          .pid = static_cast<pid_t>(lock.pid)};
}

std::string_view parse_name(std::string_view& body) {
  const std::string_view name = body.substr(0, body.find('\0'));
  body.remove_prefix(std::min(body.size(), name.size() + 1));
  return name;
}

}  // namespace krg
