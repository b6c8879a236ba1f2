// FamilyInstaller: makes the processes of a ProcessFamily, with the same pids, sharing the same
// open files and pipes. It begins with one process that has the root's pid, execs the root's
// program, and has all open files of all members as descriptors ("slots"): it is held at its exec,
// forks the others, and each of them becomes the process of its image. Their pages are then
// written; none executes an instruction before all can. Members that are to execute on other nodes
// have their places here, too, as shadows.
//
//   who makes the root           krgd (here)                         who reads the checkpoint
//   opens the slots
//                       hold()
//   execs the program   ------>  held; children; memory laid out
//                                laid_out            --------------> write() of all pages
//                                thaw()
//
// Slots: first_slot() + i is ProcessFamily::files[i], then come the files of mapped(), then
// the other ends of connections that have one end in the family (place_of_other_end()). The root
// may choose pids (CAP_CHECKPOINT_RESTORE) and has descriptors enough.
//
// Threads: the loop's thread, but for what says otherwise. When this goes before thaw() all of its
// processes are killed. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "krg/procmgr/body_descriptors.h"
#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/family_capture.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/process_family.h"
#include "krg/procmgr/process_table.h"
#include "krg/procmgr/shadow_host.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class WatchedPaths;

class FamilyInstaller {
 public:
  struct MappedFile {
    std::string path;
    uint64_t bytes = 0;
    int64_t modified_ns = 0;  // ImageFile::kMayChange, -1: it is mapped to be written
    // Shared memory without a name (kSharedMemoryPrefix): only krgd can make it.
    bool is_memory() const;
  };
  // A slot that only krgd can fill.
  struct MadeFile {
    uint32_t file = 0;  // the slot's number
    UniqueFd fd;
  };

  // All outlive it.
  struct Parts {
    NodeContext& node;
    CapabilityTable& capabilities;
    ProcessTable& table;
    ShadowHost& shadows;
    BodyDescriptors& descriptors;
    const SpreadMembers& spread;
    Ipc& ipc;
    SharedMemory* shared;         // null: nodes share none
    WatchedPaths* watched_paths;  // null: not kept
  };
  // `place`: where a member is to execute; one that shares memory of one kernel or has locks does
  // so here.
  // Errors: EBADMSG.
  static Result<std::unique_ptr<FamilyInstaller>> create(
      const Parts& parts, ProcessFamily family,
      const std::function<NodeId(const FamilyMember&)>& place);
  ~FamilyInstaller();
  FamilyInstaller(const FamilyInstaller&) = delete;
  FamilyInstaller& operator=(const FamilyInstaller&) = delete;

  const ProcessFamily& family() const;
  pid_t root() const;
  std::vector<pid_t> all_ids() const;  // of all processes and threads
  NodeId node_of(uint32_t member) const;
  const std::string& program() const;
  int first_slot() const;
  const std::vector<MappedFile>& mapped() const;
  // Pipes with what was in flight, files without a name. Any thread.
  Result<std::vector<MadeFile>> make_files() const;
  // Semaphores, queues and memory that nodes share, in a cluster of several; `done` runs in the
  // loop. Errors: as Ipc::restore(), SharedMemory::restore(); ENOTSUP: the family has segments, of
  // one node's kernel.
  void make_shared_ipc(std::function<void(Result<std::vector<MadeFile>>)> done);

  // `laid_out` runs later, in the loop. `has_late_pages`: take_userfaultfd() is to be had.
  // Errors of both: as ImageInstaller::install(); ESRCH.
  // REQUIRES: the process has the root's pid and does not exec before this returns.
  Status hold(bool has_late_pages, std::function<void(Status)> laid_out);
  // Once laid out: for pages of a member that come while it runs (PageMoves::receive()). None: it
  // executes elsewhere (PageMoves::take_lent() there), or its threads do.
  UniqueFd take_userfaultfd(uint32_t member);
  // Marks those pages of a member that it must have before it runs. `ranges`: in order of address.
  // Error: EBADMSG.
  static Result<std::vector<PageRange>> mark_first_pages(const FamilyMember& member,
                                                         const std::vector<PageRange>& ranges);
  // Contents of pages of a member that executes on this node, one range after the other. Any
  // thread, once laid out. Errors: ESRCH, EFAULT.
  static Status write(pid_t member, std::span<const PageRange> ranges,
                      std::span<const std::byte> contents);
  // Contents of a file of the family that was saved, once laid out: first all that it has is
  // dropped. Any thread, one at a time. Errors: of opening and writing it.
  Status clear_file(uint32_t file) const;
  Status write_file(uint32_t file, std::span<const PageRange> ranges,
                    std::span<const std::byte> contents) const;
  // Contents of `memories[memory]` of the family, once laid out. Any thread but the loop's. Errors:
  // of writing it.
  Status write_memory(uint32_t memory, std::span<const PageRange> ranges,
                      std::span<const std::byte> contents) const;
  // All of them run, those that were spread over nodes spread again; `done` may run later. Errors:
  // one has died, or cannot be spread; the others are killed.
  void thaw(std::function<void(Status)> done);

 private:
  struct Impl;
  explicit FamilyInstaller(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;  // shared with the hold under way
};

}  // namespace krg
