// SharedMappings: mmap of the session's shared files. The stopped call's process maps the file's
// page set instead (PageSetMapper). So it does for anonymous shared memory of a process that may
// go to other nodes, or whose children may: a file without a name. A file that --share-files names
// is one, too, once somebody maps it to write, with the file's contents, which are written back by
// msync, munmap and after the last mapping's end. Any other shared mapping goes on natively.
//
// Owner: SharedMemory. Threads: the loop's thread. Each mapping is a job of its own that holds a
// copy of the descriptor (which keeps the file) until the thread goes on.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/syscall_broker.h"
#include "page_set_mapper.h"
#include "shared_files.h"

namespace krg {

class SharedMappings {
 public:
  // What mmap(2) is told.
  struct Request {
    uint64_t address, length, protection, flags, offset;
    size_t pages() const { return (length + kPageBytes - 1) / kPageBytes; }
    uint64_t end() const { return offset + pages() * kPageBytes; }
  };

  SharedMappings(NodeContext& node, SessionFs& fs, SyscallBroker& broker, SharedFiles& files,
                 UserfaultSource source);
  SharedMappings(const SharedMappings&) = delete;
  SharedMappings& operator=(const SharedMappings&) = delete;

  // Maps the file in the caller's process; `call` then returns the address or an error. `keeper`
  // keeps the file from being gone meanwhile. `open_flags`: O_RDONLY or O_RDWR.
  void map(SyscallBroker::Call call, FileId file, const Request& request, int open_flags,
           std::shared_ptr<void> keeper);
  // Of which processes anonymous shared memory is shared with other nodes.
  void share_anonymous_if(std::function<bool(pid_t)> spreads) { spreads_ = std::move(spreads); }
  // PageSetMapper's.
  void borrow_of(ThreadLender lender) { mapper_.borrow_of(std::move(lender)); }
  Status borrow(SyscallBroker::Call& call, RemoteSyscalls::Borrowed borrowed) const {
    return mapper_.borrow(call, std::move(borrowed));
  }

 private:
  struct Job;
  using JobPtr = std::shared_ptr<Job>;

  void on_mmap(SyscallBroker::Call call);
  void on_anonymous(SyscallBroker::Call call);
  void on_ordinary_file(SyscallBroker::Call call, int number);
  void write_back_first(SyscallBroker::Call call);
  bool takes_removal(SyscallBroker::Call& call);
  void ask_rights(const JobPtr& job);
  void cover(const JobPtr& job);
  void map_there(const JobPtr& job);
  Status serve(Job& job, UniqueFd userfaultfd, pid_t pid, RemoteAddr at);

  NodeContext& node_;
  SessionFs& fs_;
  SharedFiles& files_;
  std::function<bool(pid_t)> spreads_;
  PageSetMapper mapper_;
};

}  // namespace krg
