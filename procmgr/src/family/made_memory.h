// MadeMemory: the memory that nodes shared of a family that is restarted, made again: for all nodes
// once more, or this node's kernel's own where nodes share none (a cluster of one, above all).
//
// Threads: the loop's thread, but for what says otherwise. Owned by FamilyInstaller. When it goes
// before keep(), what is shared is gone, too. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "image/install_parts.h"
#include "image/process_image.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/process_family.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class MadeMemory {
 public:
  // `shared`: null: nodes share none. All outlive it.
  MadeMemory(NodeContext& node, SharedMemory* shared, const ProcessFamily& family)
      : node_(node), shared_(shared), family_(family) {}
  ~MadeMemory();
  MadeMemory(const MadeMemory&) = delete;
  MadeMemory& operator=(const MadeMemory&) = delete;

  bool is_shared() const { return shared_ != nullptr; }
  bool has_segments() const;

  // ---- a kernel's own; any thread ----

  // What an image has mapped of it are files then (open_native()).
  void make_native(ProcessImage& image) const;
  // All but segments, which are among `ipc` then.
  Status make_native(SavedIpc& ipc);
  // The memory that a mapped file's path names; none: it names another.
  Result<std::optional<UniqueFd>> open_native(const std::string& path) const;
  // An open file of it, as it was.
  Result<UniqueFd> open_native(const FamilyFile& file) const;

  // ---- shared ----

  // `done` runs in the loop. Errors: as SharedMemory::restore().
  void make_shared(std::function<void(Status)> done);
  // Images call it by what it is now. REQUIRES: it has been made.
  void rename(ProcessImage& image) const;
  // As open_native(). In a worker.
  Result<UniqueFd> open_shared(const FamilyFile& file) const;
  // What a process is to have: each memory once for each use. Appends to what others need.
  void add_uses(const ProcessImage& image);
  // As descriptors of the process: one for each use, then /dev/userfaultfd, where it is needed.
  // Errors: of open(2).
  Result<std::vector<UniqueFd>> descriptors() const;
  // Maps all that the image has of it. `first`: the number of the first of the descriptors.
  Status install(FrozenProcess& process, const ProcessImage& image, int first) const;

  // ---- either ----

  // Contents of pages of `memories[memory]`. Any thread but the loop's, several at once. Errors:
  // of writing.
  Status write(uint32_t memory, std::span<const PageRange> ranges,
               std::span<const std::byte> contents);
  void keep();
  // Processes that have it keep it from now on.
  void release();

 private:
  void write_known_contents(const std::function<void(Status)>& done);
  Status write_native(const SavedMemory& memory, int fd, std::span<const PageRange> ranges,
                      std::span<const std::byte> contents) const;
  Status write_shared(const SavedMemory& memory, std::span<const PageRange> ranges,
                      std::span<const std::byte> contents) const;
  Status write_segment(const SavedMemory& memory, std::span<const PageRange> ranges,
                       std::span<const std::byte> contents) const;

  NodeContext& node_;
  SharedMemory* const shared_;
  const ProcessFamily& family_;
  std::map<uint64_t, UniqueFd> native_;  // by what images call it
  SharedMemory::Restored restored_;
  std::vector<SharedUse> uses_;
};

}  // namespace krg
