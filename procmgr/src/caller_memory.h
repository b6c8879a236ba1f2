// CallerMemory: the memory of one stopped call's caller, as krgd reads and writes it. What the
// loop's thread cannot touch, because it is the loop that brings it (MemorySource), is read in
// advance, once a handler has met it, and written behind the handler's back.
//
// Threads: the loop's; of others only those that read and write, which may wait for the loop.
// Owned by SyscallBroker::Call. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "krg/procmgr/syscall_broker.h"

namespace krg {

// A SyscallBroker::MemoryGuard that also reads and writes what it guards, wherever it is. A call
// that fails with EFAULT after it has met such memory is made again when that was read, as if for
// the first time; what it writes there is written before it succeeds. Of memory that has another
// guard nothing is brought.
struct MemorySource {
  SyscallBroker::MemoryGuard waits;
  // Of one page. `done` may run at once. Errors: the call fails with EFAULT.
  std::function<void(pid_t tid, RemoteAddr address, size_t bytes,
                     std::function<void(Result<std::string>)> done)>
      read;
  std::function<void(pid_t tid, RemoteAddr address, const std::string& bytes,
                     std::function<void(Status)> done)>
      write;

  bool operator()(pid_t tid, RemoteAddr address, size_t bytes, bool write_access) const {
    return waits(tid, address, bytes, write_access);
  }
};

// Of one broker.
struct MemoryGuards {
  std::vector<SyscallBroker::MemoryGuard> all = {};
  std::thread::id loop = {};
};

class CallerMemory {
 public:
  CallerMemory(std::shared_ptr<const MemoryGuards> guards, pid_t tid)
      : guards_(std::move(guards)), tid_(tid) {}

  // Errors: EFAULT; what was not to be touched is known then.
  Result<std::string> read(RemoteAddr from, size_t bytes);
  Status write(RemoteAddr to, std::string_view bytes);

  // Whether a read has met what is to be brought, and that has not been in vain.
  bool lacks_any() const { return !missing_.empty(); }
  // Brings that; read() finds it from then on. `done` may run at once. REQUIRES: lacks_any(); this
  // stays until then. Errors: EFAULT.
  void bring(std::function<void(Status)> done);
  // Whether something has been written that has yet to get there.
  bool owes_any() const { return !owed_.empty(); }
  // Writes it, as bring() brings.
  void settle(std::function<void(Status)> done);

 private:
  using Guard = SyscallBroker::MemoryGuard;
  struct Owed {
    const MemorySource* to;
    RemoteAddr at;
    std::string bytes;  // of one page
  };

  const Guard* guard_of(RemoteAddr at, size_t bytes, bool write) const;
  Status read_page(RemoteAddr from, size_t bytes, std::string& to);

  const std::shared_ptr<const MemoryGuards> guards_;
  const pid_t tid_;
  std::map<uint64_t, const MemorySource*> missing_;  // by the page's address
  std::map<uint64_t, std::string> brought_;
  std::vector<Owed> owed_;
};

}  // namespace krg
