// CheckpointStore: a folder with versions of one application's checkpoint (FORMAT.md): for each a
// master file, v3.h5, and a part for each node, v3.n0.h5. A version is there when its master is:
// the parts are on the disk before it appears by rename(2), whatever is killed when.
//
// Threads: any, one at a time for each object. Writers of one folder exclude each other by
// flock(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "krg/checkpoint/part_file.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// What a master file says.
struct VersionInfo {
  uint32_t version = 0;
  uint64_t id = 0;
  std::string created;  // ISO 8601, UTC
  std::string command, description;
  uint64_t root_pid = 0, processes = 0;
  uint64_t user_data = 0;       // the application's own
  uint64_t page_bytes = 0;      // that this version holds itself
  uint64_t memory_bytes = 0;    // that its processes had
  std::vector<uint32_t> nodes;  // whose parts there are
  std::vector<uint32_t> needs;  // older versions whose pages it uses, in order
  std::vector<uint64_t> needs_ids;
};

Status write_master(const std::string& path, const VersionInfo& info);
// Errors: those of check_seal(), and what is inconsistent.
Result<VersionInfo> read_master(const std::string& path);

class CheckpointStore {
 public:
  // Errors: of open(2); ENOENT when it is not there and not to be made.
  static Result<CheckpointStore> open(const std::string& folder, bool make);

  const std::string& folder() const { return folder_; }
  std::string master_path(uint32_t version) const;
  std::string part_path(uint32_t version, uint32_t node) const;

  // Numbers of all versions that are there, whole or damaged, in order.
  Result<std::vector<uint32_t>> versions() const;
  // The newest when `version` is 0. Errors: ENOENT; read_master()'s.
  Result<VersionInfo> info(uint32_t version) const;
  // The parts that a version needs, its own first, in the order of info.nodes; what they say of
  // themselves is checked against the master. Errors: one of them is missing, damaged, or of
  // another checkpoint.
  Result<std::vector<std::unique_ptr<PartReader>>> open_parts(const VersionInfo& info) const;
  // Reads every block of a version. Errors: the first fault.
  Status verify(uint32_t version) const;

  // Excludes other writers until this goes; removes what an interrupted one left. Waits so long for
  // another one. Errors: EBUSY.
  Status lock(std::chrono::milliseconds patience = std::chrono::milliseconds(0));
  // Reads what prune() has to know, which takes as long as there are versions, so that it need not.
  // REQUIRES: lock().
  void learn_masters();
  // The number for the next version. REQUIRES: lock().
  Result<uint32_t> next_version() const;
  // Of a removed version, to be written over by a part of so many bytes of pages; empty: none that
  // is worth it.
  std::string spare_path(uint32_t node, uint64_t page_bytes) const;
  // Whatever there is of a version that was not finished.
  void remove_parts_of(uint32_t version) const;
  // The parts are on the disk: the version is there from now on. REQUIRES: lock().
  Status commit(const VersionInfo& info);
  // The files at `paths` take the places of the parts of `info`, in the order of info.nodes; they
  // have all pages themselves from then on; newer versions find theirs where they were. REQUIRES:
  // lock(), which ends when that is done.
  Status replace_parts(const std::vector<std::string>& paths, const VersionInfo& info);
  // Only the newest `keep` versions are there from now on. What the others had is still on the
  // disk, until tidy(): to free a GiB may take a second. REQUIRES: lock().
  Status hide_older(unsigned keep) const;
  // Removes what no version needs; one part of each node becomes a spare. The next writer need not
  // wait until it is unlinked. REQUIRES: lock(), which ends.
  Status tidy() const;
  // Both: keeps the newest `keep` versions and what they need. REQUIRES: lock(), which ends.
  Status prune(unsigned keep) const;

 private:
  CheckpointStore(std::string folder, UniqueFd directory)
      : folder_(std::move(folder)), directory_(std::move(directory)) {}
  enum class Removal { kNow, kLater };  // later: by tidy()
  Status remove_unneeded_parts(Removal how) const;
  void remove_all(const std::string& ending) const;
  std::string spare_name(uint32_t node) const;
  Result<std::vector<uint32_t>> needs_of(uint32_t version) const;
  Status sync() const;

  std::string folder_;
  UniqueFd directory_;
  std::map<uint32_t, std::vector<uint32_t>> learned_;  // what versions need, while it is locked
};

// The family of a version, put together of its own parts, the first of `parts`. Errors: they
// contradict each other.
Result<ProcessFamily> merged_family(const VersionInfo& info,
                                    const std::vector<std::unique_ptr<PartReader>>& parts);

}  // namespace krg
