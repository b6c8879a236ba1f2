// A family's snapshot becomes the next version in a folder: one node opens it (NewVersion), each
// node writes its part (write_part()), and the first one commits when all have. write_version() is
// all of that for a family on one node.
//
// Threads: a worker, and threads of its own meanwhile. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/progress.h"
#include "krg/procmgr/family_capture.h"

namespace krg {

class LastParts;
class LivePart;

struct WriteOptions {
  // The version that pages which were not written since then (is_clean) are in.
  struct Base {
    uint32_t version = 0;  // 0: none, no page is clean
    uint64_t id = 0;
  };

  std::string folder;
  std::string description;
  uint64_t user_data = 0;  // the application's own
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

// What a node is to write.
struct PartOrder {
  std::string folder;
  uint32_t version = 0, node = 0;
  uint64_t id = 0;
  WriteOptions::Base base;
  bool compress = false;
  std::function<void(const std::string& step)> on_step = [](const std::string&) {};
  SharedProgress progress = {};
  std::shared_ptr<LastParts> last = {};  // of this node; null: older parts are read
  // Its clean pages are in this; null: they are in the base.
  std::shared_ptr<LivePart> live = {};
};

struct WrittenPart {
  uint32_t node = 0;
  uint64_t page_bytes = 0, memory_bytes = 0, stored_bytes = 0;
  std::vector<std::pair<uint32_t, uint64_t>>
      needs;  // older versions whose pages it uses, their ids
};

// What pages are read from.
class PageContents {
 public:
  virtual ~PageContents() = default;
  virtual Status read(uint32_t member, std::span<const PageRange> ranges,
                      std::span<std::byte> into) const = 0;
  // Where all of that lies one after the other in memory already; null: read() has it.
  virtual const std::byte* find_all(uint32_t member, std::span<const PageRange> ranges) const {
    static_cast<void>(member);
    static_cast<void>(ranges);
    return nullptr;
  }
};

// What a family's memory is read from; FamilySnapshot, or a test's own.
class PageSnapshot : public PageContents {
 public:
  virtual const ProcessFamily& family() const = 0;
  virtual Result<std::vector<FamilySnapshot::Pages>> pages() const = 0;
};

// Errors: ESTALE: the base is not to be had any more; ENOSPC and others of the disk; ESRCH: the
// snapshot's processes were killed. Nothing is left then.
Result<WrittenPart> write_part(const PageSnapshot& snapshot, const PartOrder& order);

// A version that is not there yet: no other one is written into its folder meanwhile. Whatever has
// been written of it is removed when this goes without a commit.
class NewVersion {
 public:
  // Errors: EBUSY: another one is being written there; of the disk.
  static Result<std::unique_ptr<NewVersion>> open(const WriteOptions& options);
  ~NewVersion();

  PartOrder order_for(uint32_t node) const;
  // `family`: the whole; images are not needed. Older versions that are not to be kept are none any
  // more then. Errors: of the disk.
  Result<WrittenVersion> commit(const ProcessFamily& family, const std::vector<WrittenPart>& parts);
  // After that: frees the space of what is not kept, for which nobody has to wait.
  Status tidy();

 private:
  NewVersion(CheckpointStore store, const WriteOptions& options)
      : store_(std::move(store)), options_(options) {}
  CheckpointStore store_;
  const WriteOptions options_;
  uint32_t version_ = 0;
  uint64_t id_ = 0;
  bool is_committed_ = false;
};

// Errors: EBUSY: another one is being written there; ESTALE: the base is not to be had any more;
// ENOSPC and others of the disk; ESRCH: the snapshot's processes were killed. What was there before
// stays then.
Result<WrittenVersion> write_version(const PageSnapshot& snapshot, const WriteOptions& options);

}  // namespace krg
