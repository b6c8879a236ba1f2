// SharedMappings: mmap of the session's shared files. The stopped call's process maps the file's
// page set (a memfd) instead, with a userfaultfd of its own, by remote system calls; from then on
// the page set serves its faults. Any other shared file mapping goes on natively.
//
// Owner: SharedMemory. Threads: the loop's thread. Each mapping is a job of its own that holds the
// call, the thread and a copy of the descriptor (which keeps the file) until the thread goes on.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/syscall_broker.h"
#include "remote_syscalls.h"
#include "shared_files.h"
#include "userfault_source.h"

namespace krg {

class SharedMappings {
 public:
  SharedMappings(NodeContext& node, SessionFs& fs, SyscallBroker& broker, SharedFiles& files,
                 UserfaultSource source);
  SharedMappings(const SharedMappings&) = delete;
  SharedMappings& operator=(const SharedMappings&) = delete;

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;

  void on_mmap(SyscallBroker::Call call);
  void cover(const JobPtr& job);
  void borrow(const JobPtr& job);
  void open_userfaultfd(const JobPtr& job);
  void take_userfaultfd(const JobPtr& job, int64_t opened);
  void map(const JobPtr& job);
  void serve(const JobPtr& job, int64_t address);
  void close_descriptors(const JobPtr& job, int64_t result);

  NodeContext& node_;
  SessionFs& fs_;
  SharedFiles& files_;
  const UserfaultSource source_;
};

}  // namespace krg
