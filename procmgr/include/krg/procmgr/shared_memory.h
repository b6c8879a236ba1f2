// SharedMemory: memory that unmodified programs on different nodes share by name: the session's
// /dev/shm (POSIX shared memory objects, named semaphores) is one tree of krgfs, "shm", whose files
// every node maps coherently (krg/shmem/page_set.h). System V segments are such files without
// names.
//
// Names, attributes and uses are kept by node 0 (shared_home.h), contents lie where they are used.
// A file lives until its last name, descriptor and mapping on any node is gone.
//
// Threads: the loop's thread. Owned by krgd's main; the Kddm outlives it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/saved_memory.h"
#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/procmgr/thread_lender.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/kddm.h"

namespace krg {

// Where a word of shared memory is, by a name that is the same on all nodes and in all processes.
struct SharedPlace {
  SetId set;
  PageIndex page;
  size_t offset = 0;  // bytes into the page
  auto operator<=>(const SharedPlace&) const = default;
};

// Memory that a restart has made again. Files are gone when this goes before keep(); what processes
// have mapped or open by then stays otherwise. `numbers`: of each by what it was saved as.
class RestoredMemory {
 public:
  virtual ~RestoredMemory() = default;
  virtual const std::map<uint64_t, uint64_t>& numbers() const = 0;
  virtual void keep() = 0;
};

class SharedMemory {
 public:
  // Adds its tree to `fs`. REQUIRES: before fs.serve(). Errors: ENOTSUP with the reason where the
  // machine does not let krgd serve what programs map: /dev/shm stays the node's own then.
  static Result<std::unique_ptr<SharedMemory>> create(NodeContext& node, Kddm& kddm, SessionFs& fs,
                                                      SyscallBroker& broker);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // What lies at `address` in the process `pid` of this node (any thread's address space is its
  // process's), when that is memory that other nodes may share; else nothing.
  std::optional<SharedPlace> locate(pid_t pid, RemoteAddr address) const;
  // The memory file of a set that locate() names; -1: it is none on this node.
  int memory_of(SetId set) const;
  // See PageSet::let_go().
  void let_go(const SharedPlace& place);
  // Anonymous shared memory, too, of processes for which `spreads` is true: their children may be
  // on other nodes.
  void share_anonymous_if(std::function<bool(pid_t pid)> spreads);
  // Of whom threads of spread processes are borrowed, to map what they share.
  void borrow_of(ThreadLender lender);

  // For processes that move with what they share. A file is named by the same number on all nodes.
  // 0: no file's memory on this node is that inode.
  uint64_t file_of_memory(uint64_t inode) const;
  // This node uses the file until what `done` gets has gone. Errors: ENOENT.
  void hold(uint64_t file, std::function<void(Result<std::shared_ptr<void>>)> done);
  // What a process of this node maps; to be given to it. Errors: ENOENT, of open(2).
  Result<UniqueFd> memory(uint64_t file, bool writes) const;
  // To be given to a process that is to open a userfaultfd; -1: it calls userfaultfd(2).
  int userfaultfd_device() const;
  // Serves what the process `pid` has mapped at `at`, from `offset` on in the file, and has not
  // touched. Errors: what PageSet::attach() says.
  Status serve(uint64_t file, UniqueFd userfaultfd, pid_t pid, RemoteAddr at, uint64_t offset,
               uint64_t bytes);

  // Whether what `pid` has mapped has to be served anew in a child that it forks, before the
  // child's first instruction (follow_fork): not where the kernel tells of forks.
  bool has_to_be_followed(pid_t pid) const;

  // For checkpoints. The file that is open; 0: none of these.
  uint64_t file_of(const struct stat& open_file) const;
  // Another description of it, as open(2) with `flags` makes it. In a worker.
  Result<UniqueFd> open_file(uint64_t file, int flags) const;
  // What is a family's that stands, `others` running, too: files that members have mapped or open
  // (`held`), and what nobody else can have. Errors: ENOTSUP: whose one is is not known.
  struct Whose {
    std::vector<pid_t> members, others;
    std::vector<uint64_t> held;
  };
  void save(const Whose& whose, std::function<void(Result<std::vector<SavedMemory>>)> done);
  // All of it again, for all nodes, without contents. Errors: EEXIST.
  using Restored = std::unique_ptr<RestoredMemory>;
  void restore(const std::vector<SavedMemory>& memories,
               std::function<void(Result<Restored>)> done);
  // As PageSet's functions of these names; a file without contents has no pages.
  Result<std::vector<PageIndex>> owned(uint64_t file) const;
  std::optional<std::vector<bool>> take_written(uint64_t file);
  void use_before_change(uint64_t file, std::vector<PageIndex> pages,
                         std::function<void(PageIndex, std::span<const std::byte>)> use,
                         std::function<void(Status)> done);
  // Errors: as PageSet::write(); ENOENT.
  void write(uint64_t file, uint64_t offset, std::string_view bytes,
             std::function<void(Status)> done);

  // What /proc/sysvipc/shm says of the cluster's System V segments.
  void segments_text(std::function<void(Result<std::string>)> done);
  // Files that have contents; 0 when all is quiet.
  size_t file_count() const;

 private:
  struct Impl;
  explicit SharedMemory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
