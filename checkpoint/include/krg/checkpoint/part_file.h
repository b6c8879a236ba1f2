// PartWriter and PartReader: the file with one node's processes and pages of one version
// (FORMAT.md). The tables are made by HDF5 first, the place of the pages with them; the pages are
// then written there by pwrite(2), block by block, each with its checksum.
//
// Threads: one at a time for each object, but what writes and reads blocks, which several may call.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "krg/procmgr/process_family.h"
#include "krg/runtime/result.h"

namespace krg {

inline constexpr uint64_t kCheckpointPage = 4096;
inline constexpr uint64_t kCheckpointBlock = 1u << 20;  // what one checksum is for

// Where pages of a process or of a saved file are.
struct PartRange {
  // Index of ProcessFamily::members; behind those: of its files, whose addresses are offsets.
  uint32_t member = 0;
  uint32_t version = 0;  // in whose part they are
  uint64_t address = 0, bytes = 0;
  uint64_t offset = 0;  // in that part's pages
  bool operator==(const PartRange&) const = default;
};

struct PartContents {
  uint32_t version = 0, node = 0;
  uint64_t id = 0;  // of the checkpoint
  ProcessFamily family;
  std::vector<PartRange> ranges;  // those of older versions, too
  uint64_t page_bytes = 0;        // of this version
};

class PartWriter {
 public:
  struct Options {
    bool compress = false;  // zstd, each block where that makes it smaller
    std::string spare;      // a file to write over, which is faster than a new one; empty: none
  };

  // Errors: of open(2), write(2). `path` is overwritten.
  static Result<std::unique_ptr<PartWriter>> create(const std::string& path,
                                                    const PartContents& contents,
                                                    const Options& options);
  // Pages are written before anything else is known: `page_bytes` of them at the most. The file is
  // unfinished(path) until then. Errors: as above.
  static Result<std::unique_ptr<PartWriter>> begin(const std::string& path, uint64_t page_bytes,
                                                   const Options& options);
  static std::string unfinished(const std::string& path);
  // All is known: the blocks that were written are the first ones of contents.page_bytes.
  Status complete(const PartContents& contents);
  ~PartWriter();

  // Block `index` of the pages: kCheckpointBlock bytes, the last one fewer. Errors: ENOSPC.
  Status write(uint64_t index, std::span<const std::byte> block);
  // Whether blocks go past the kernel's cache: write() is better done in two steps then, by threads
  // that have work for a processor, and by others that wait for the disk.
  bool waits_for_disk() const;
  void check(uint64_t index, std::span<const std::byte> block);
  Status store(uint64_t index, std::span<const std::byte> block);
  // All is on the disk then. Errors: ENOSPC, EIO.
  Status finish();
  // On the disk and in use, once finished.
  uint64_t stored_bytes() const;

 private:
  struct Impl;
  explicit PartWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class PartReader {
 public:
  // Checks all but the pages. Errors: those of check_seal(), and what is inconsistent.
  static Result<std::unique_ptr<PartReader>> open(const std::string& path);
  ~PartReader();

  const PartContents& contents() const;
  uint64_t block_count() const;
  // Block `index`, as long as it is. Errors: it is damaged. REQUIRES: `into` has room for it.
  Result<size_t> read(uint64_t index, std::span<std::byte> into) const;
  // The same in two steps: what the file has of it, which waits for the disk, and what that says,
  // which takes the processor: of those bytes themselves, or in `room`, which is asked for then.
  // REQUIRES: room for kCheckpointBlock.
  Result<std::span<const std::byte>> fetch(uint64_t index, std::span<std::byte> room) const;
  Result<std::span<const std::byte>> unpack(
      uint64_t index, std::span<const std::byte> stored,
      const std::function<std::span<std::byte>()>& room) const;

 private:
  struct Impl;
  explicit PartReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
