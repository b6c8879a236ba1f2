// SealedFile: what makes each file of a checkpoint tell whole from damaged before the HDF5 library
// reads a byte of it: a user block of text in front (FORMAT.md, "Seal"), with the file's size, its
// bulk data's place, and a checksum of everything else. Threads: any; files by path.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

inline constexpr uint64_t kSealBytes = 4096;  // the HDF5 user block
inline constexpr unsigned kCheckpointFormat = 1;

struct Seal {
  enum class Kind { kMaster, kPart };
  Kind kind = Kind::kPart;
  uint64_t id = 0;                           // of the checkpoint that the file belongs to
  uint64_t file_bytes = 0;                   // of the whole file
  uint64_t bulk_offset = 0, bulk_bytes = 0;  // data with checksums of its own
  uint64_t metadata_hash = 0;                // XXH3 of all but this block and the bulk data
};

// Reads the seal and checks the whole file against it. Errors, one sentence each: it is not there;
// it is no checkpoint file of ours; it was made by a newer version; it is cut off; it is damaged.
Result<Seal> check_seal(const std::string& path);
// Writes the seal of a file that is complete otherwise; fills in its size and hash. `fd`: open for
// reading and writing. Errors: of write(2).
Status put_seal(int fd, Seal seal);

}  // namespace krg
