// write_version(): a family's snapshot becomes the next version in a folder. Threads: a worker, and
// threads of its own meanwhile. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/procmgr/family_capture.h"

namespace krg {

struct WriteOptions {
  // The version that pages which were not written since then (is_clean) are in.
  struct Base {
    uint32_t version = 0;  // 0: none, no page is clean
    uint64_t id = 0;
  };

  std::string folder;
  std::string description;
  Base base;
  std::chrono::milliseconds patience{0};  // for another writer in the folder
  bool compress = false;
  unsigned keep = 0;  // versions, older ones are removed afterwards; 0: all
  // Told of each step before it is taken: tests end the process there.
  std::function<void(const std::string& step)> on_step = [](const std::string&) {};
};

struct WrittenVersion {
  VersionInfo info;
  uint64_t stored_bytes = 0;
};

// What a family's memory is read from; FamilySnapshot, or a test's own.
class PageSnapshot {
 public:
  virtual ~PageSnapshot() = default;
  virtual const ProcessFamily& family() const = 0;
  virtual Result<std::vector<FamilySnapshot::Pages>> pages() const = 0;
  virtual Status read(uint32_t member, std::span<const PageRange> ranges,
                      std::span<std::byte> into) const = 0;
};

// Errors: EBUSY: another one is being written there; ESTALE: the base is not to be had any more;
// ENOSPC and others of the disk; ESRCH: the snapshot's processes were killed. What was there before
// stays then.
Result<WrittenVersion> write_version(const PageSnapshot& snapshot, const WriteOptions& options);

}  // namespace krg
