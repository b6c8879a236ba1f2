// The tables of a part as HDF5 has them: a row is a C struct, its bytes are the file's.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <vector>

#include "h5_handle.h"
#include "krg/checkpoint/part_file.h"

namespace krg {

struct ProcessRow {
  int32_t pid, parent, group, session, wait_status;
  uint32_t descriptors;
  std::array<char, 16> name;
};
struct FileRow {
  uint32_t kind, flags;
  int64_t offset;
  uint64_t bytes;
  std::array<char, 256> path;  // its beginning, when it is longer
};
struct BlockRow {
  uint64_t checksum;  // XXH3 of the block's bytes
  uint32_t stored;    // bytes in the file; fewer than the block has when it is compressed
  uint32_t encoding;  // 0: as it is, 1: zstd
};
static_assert(sizeof(ProcessRow) == 40 && sizeof(FileRow) == 280 && sizeof(BlockRow) == 16 &&
              sizeof(PartRange) == 32);

H5Handle process_row_type();
H5Handle file_row_type();
H5Handle range_row_type();
H5Handle block_row_type();

}  // namespace krg
