// The FUSE protocol's structures: node ids of krgfs, attributes, the fixed part of a request.
// Source: linux/fuse.h, protocol 7.31 or later. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/fuse.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "krg/procmgr/lock_holders.h"
#include "krg/procmgr/session_fs.h"

namespace krg {

// A node id of the protocol is the tree's number in the upper 8 bits and its FileId below; the root
// that holds the trees is FUSE_ROOT_ID.
inline constexpr int kTreeShift = 56;
inline constexpr FileId kFileMask = (FileId{1} << kTreeShift) - 1;

inline uint64_t node_id(size_t tree, FileId file) {
  return (static_cast<uint64_t>(tree + 1) << kTreeShift) | file;
}
inline size_t tree_number(uint64_t node) {
  return (node >> kTreeShift) - 1;
}

fuse_attr protocol_attributes(uint64_t node, const struct stat& from);
// A time in seconds as the protocol's pair.
void set_valid(double valid_s, uint64_t& seconds, uint32_t& nanoseconds);
fuse_open_out protocol_open(const FsOpened& opened);
fuse_file_lock to_protocol(const RecordLock& lock);
RecordLock from_protocol(const fuse_file_lock& lock);

// Reads the fixed part of a request; the rest follows. Too short a body reads as zeros.
template <class Body>
Body parse(std::string_view& body) {
  Body parsed{};
  std::memcpy(&parsed, body.data(), std::min(body.size(), sizeof parsed));
  body.remove_prefix(std::min(body.size(), sizeof parsed));
  return parsed;
}
// Takes a name off the body: each ends with a NUL.
std::string_view parse_name(std::string_view& body);

}  // namespace krg
