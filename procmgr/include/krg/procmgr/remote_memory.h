// RemoteMemory: memory of other nodes for one unmodified process. In a cluster with a limit of
// memory per node, the large private anonymous mappings of a process with USE_REMOTE_MEMORY are
// pages of a page set of its own: those that do not fit into this node's share go to other nodes
// and come back when they are touched.
//
//   mmap       of kFirstRemoteMapping bytes and more, or, once a process has such memory (and
//   cannot
//              fork any more), of kLeastRemoteMapping; writable, private, anonymous, at no fixed
//              address; ENOMEM when all nodes' shares are promised to somebody
//   brk        beyond kMostNativeHeap is refused, so that malloc(3) takes mmap
//   mremap     may move and shrink; growing is refused, so that realloc(3) copies
//   madvise    MADV_DONTNEED and MADV_FREE give zeros
//   fork       is refused (ENOMEM) while there is such memory, since a copy of it is not to be had;
//              vfork(2), posix_spawn(3) and threads are not forks in this sense
//
// Threads: the loop's thread. Owned by krgd's main; what it is made of outlives it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/shmem/kddm.h"

namespace krg {

// syscall_filter.cpp stops what is at least so long.
inline constexpr uint64_t kLeastRemoteMapping = 128u << 10;
inline constexpr uint64_t kFirstRemoteMapping = 1u << 20;
inline constexpr uint64_t kMostNativeHeap = 8u << 20;

class RemoteMemory {
 public:
  // Takes the messages and calls. REQUIRES: node.memory_per_node is the Kddm's limit on every node.
  // Errors: ENOTSUP with the reason where krgd cannot serve the faults of programs' system calls:
  // this node neither has nor lends such memory then.
  static Result<std::unique_ptr<RemoteMemory>> create(NodeContext& node, Kddm& kddm,
                                                      SyscallBroker& broker,
                                                      const CapabilityTable& capabilities);
  ~RemoteMemory();
  RemoteMemory(const RemoteMemory&) = delete;
  RemoteMemory& operator=(const RemoteMemory&) = delete;

 private:
  struct Impl;
  explicit RemoteMemory(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
