// PageSetMapper: makes a stopped mmap(2) a mapping of a page set instead: the process, by remote
// system calls, opens a userfaultfd for krgd (unless one of its own serves the set already) and
// maps the set's memfd; from then on the page set serves its faults.
//
// Threads: the loop's thread. Owned by SharedMemory and RemoteMemory, one each. Each mapping is a
// job of its own that holds the call, the thread and what its request holds until the thread goes
// on. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/procmgr/thread_lender.h"
#include "remote_syscalls.h"
#include "userfault_source.h"

namespace krg {

class PageSetMapper {
 public:
  struct Request {
    // mmap's; of `flags` MAP_FIXED and its like count. `offset` is into the memfd.
    uint64_t address = 0, length = 0, protection = 0, flags = 0, offset = 0;
    UniqueFd memory;  // the memfd as the process may have it
    // Children of fork(2) do not get the mapping.
    bool stays_with_process = false;
    // Whether the process has a userfaultfd that serves the set; none: it never has.
    std::function<bool(pid_t pid)> is_served = {};
    // The mapping is at `at` in the process `pid`; no userfaultfd when it is served already.
    std::function<Status(UniqueFd userfaultfd, pid_t pid, RemoteAddr at)> attach;
    // What the call returns: an address or -errno. Not called when the process died before.
    std::function<void(int64_t result)> done = {};
  };

  PageSetMapper(NodeContext& node, UserfaultSource source)
      : node_(node), source_(std::move(source)) {}
  PageSetMapper(const PageSetMapper&) = delete;
  PageSetMapper& operator=(const PageSetMapper&) = delete;

  // Answers the call, now or later. A process that another one traces cannot be helped: ENODEV.
  void map(SyscallBroker::Call call, Request request);
  // Of whom threads are borrowed that krgd traces already.
  void borrow_of(ThreadLender lender) { lender_ = std::move(lender); }
  // As RemoteSyscalls::borrow().
  Status borrow(SyscallBroker::Call& call, RemoteSyscalls::Borrowed borrowed) const;
  // Whether the thread has a tracer, and cannot be borrowed.
  bool is_out_of_reach(pid_t tid) const;

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;

  void give_descriptors(const JobPtr& job);
  void fail(const JobPtr& job, int error);
  void begin(const JobPtr& job);
  void open_userfaultfd(const JobPtr& job);
  void take_userfaultfd(const JobPtr& job, int64_t opened);
  uint64_t next_place(uint64_t length);
  void map_memory(const JobPtr& job);
  void serve(const JobPtr& job);
  void undo(const JobPtr& job);
  void close_descriptors(const JobPtr& job, int64_t result);

  NodeContext& node_;
  const UserfaultSource source_;
  ThreadLender lender_;
  uint64_t next_place_ = 0;  // bytes into the window (shared_window.h)
};

}  // namespace krg
