// FrozenProcess: a process all of whose threads krgd holds in ptrace stops. Letting it go lets it
// run on as if nothing had been, stopped if it was stopped. System calls that it runs for krgd are
// FrozenThread's.
//
// Threads: the loop's thread, which is the tracer. Shared by who works with it; invariant: when the
// last owner goes it is thawed, unless it became something else. A process that is killed while it
// is frozen ends at once: is_alive() tells, every call says ESRCH.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "image/frozen_thread.h"
#include "krg/procmgr/child_reaper.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

class FrozenProcess {
 public:
  using Frozen = std::function<void(Result<std::shared_ptr<FrozenProcess>>)>;

  // Freezes a process that runs, sleeps or is stopped, with all its threads; `done` runs later, in
  // the loop. Errors: EPERM (it is traced, or may not be), ESRCH, ETIMEDOUT: a thread is in a
  // system call that does not end for a stop (vfork, a slow disk, a call that krgd has yet to
  // answer); the process runs on then. A system call in progress stands as the kernel left it, to
  // be restarted.
  static void freeze(EventLoop& loop, ChildReaper& reaper, pid_t pid, Frozen done,
                     std::chrono::milliseconds patience = kPatience);
  static constexpr std::chrono::milliseconds kPatience{5000};
  // A process of one thread that is stopped already; of its others, if add() takes them all in.
  // `instruction`: a `syscall` that it has, where that is known.
  static std::shared_ptr<FrozenProcess> adopt(ChildReaper& reaper, FrozenThread main,
                                              RemoteAddr instruction = {});
  FrozenProcess(const FrozenProcess&) = delete;
  FrozenProcess& operator=(const FrozenProcess&) = delete;
  ~FrozenProcess();

  pid_t pid() const { return pid_; }
  bool is_alive() const;
  // Runs when it dies while it is frozen (once; may drop the last owner).
  void on_end(std::function<void()> ended);
  FrozenThread& main() { return *threads_.front(); }
  // The main thread first.
  std::span<const std::unique_ptr<FrozenThread>> threads() const { return threads_; }
  // Takes in a thread of it that is stopped.
  void add(FrozenThread thread);

  // A system call of the main thread, or of another one. At a `syscall` instruction that the
  // program has somewhere, or move_in()'s.
  int64_t call(long number, FrozenThread::Arguments arguments);
  int64_t call_in(FrozenThread& thread, long number, FrozenThread::Arguments arguments);
  Result<RemoteAddr> instruction();

  // Its memory, also where the program itself may not read or write. Errors: EIO, EFAULT: there is
  // none; ESRCH. Memory that the loop itself has to bring would block it.
  Status read(RemoteAddr from, std::span<char> to) const;
  Status write(RemoteAddr to, std::span<const char> bytes) const;
  template <class T>
  Result<T> read_value(RemoteAddr from) const {
    T value{};
    if (auto got = read(from, {reinterpret_cast<char*>(&value), sizeof value}); !got)
      return got.error();
    return value;
  }
  template <class T>
  Status write_value(RemoteAddr to, const T& value) const {
    return write(to, {reinterpret_cast<const char*>(&value), sizeof value});
  }
  // kScratchBytes of memory of its own for arguments of calls; mapped when it is first asked for,
  // gone when it is dropped or the process goes on. Behind it lie krgd's room for calls
  // (call_batch.h) and code, with a `syscall` instruction at its start.
  static constexpr size_t kScratchBytes = 16384, kCallsBytes = 8192, kCodeBytes = 4096;
  static constexpr size_t kHelperBytes = kScratchBytes + kCallsBytes + kCodeBytes;
  struct Helpers {
    RemoteAddr scratch{}, calls{}, code{};
  };
  Result<Helpers> helpers();
  Result<RemoteAddr> scratch();
  void drop_scratch();
  // Has all of that from `at` on: all else may then be unmapped.
  Status move_in(RemoteAddr at);

  // A task that shares its memory, or has a copy of it as fork(2) makes one, and stays stopped,
  // traced by the caller, until it is killed: nobody's child but init's. The frozen process may go
  // on, or end.
  enum class PageSource { kShared, kCopy };
  Result<pid_t> clone_page_source(PageSource how = PageSource::kShared);

  // Its main thread forks: a child of its own parent, frozen where this one stands. `tid_address`:
  // where the kernel writes the child's id, and clears it at its end; null: nowhere. Errors: of
  // clone(2), ESRCH.
  Result<std::shared_ptr<FrozenProcess>> fork(RemoteAddr tid_address);

  // Its threads' ends no longer write into its memory (set_tid_address(2), robust futexes), which a
  // page source may share. Before become() and kill(): it is not to go on afterwards.
  void detach_from_memory();

  // The caller is the tracer from now on: each thread stands in a kTrap stop as it would go on,
  // what was put into the process is taken out. Returns the threads' ids, the main thread's first.
  // Errors: ESRCH.
  Result<std::vector<pid_t>> hand_over();
  // Lets it go on. What was put into it (scratch) is taken out before.
  void thaw();
  // Ends it (SIGKILL).
  void kill();
  // It becomes another program: the main thread goes on with that system call, an execve, all
  // signals blocked; the other threads never go on. One that is stopped by job control is stopped
  // when it has execed, which nobody is told anew. When it cannot, it is killed.
  Status become(long number, FrozenThread::Arguments arguments);
  // It execs and is held before the new program's first instruction: `done` gets that process
  // (later, in the loop), and this one has nothing left. Should krgd end from then on, it dies.
  // Errors: what the kernel said of the exec, the process being frozen as before; ESRCH: it has
  // died. REQUIRES: it has one thread.
  static void exec(std::shared_ptr<FrozenProcess> process, long number,
                   FrozenThread::Arguments arguments, Frozen done);

 private:
  friend class HeldExec;
  FrozenProcess(ChildReaper& reaper, pid_t pid) : reaper_(reaper), pid_(pid) {}
  void on_thread_end(pid_t tid);
  void watch(pid_t tid);
  void unwatch();
  Result<Helpers> map_helpers(RemoteAddr at, uint64_t more_flags);

  ChildReaper& reaper_;
  const pid_t pid_;
  std::vector<std::unique_ptr<FrozenThread>> threads_;
  std::set<pid_t> watched_;  // whose ends the ChildReaper has yet to tell
  std::function<void()> ended_;
  RemoteAddr instruction_{}, program_instruction_{};  // the one to use; one of the program's own
  Helpers helpers_;
  friend class Freezing;
};

// Lets the caller of a stopped fork, vfork, clone or clone3 make its child, which is then frozen
// before its first instruction; `done` gets the child, and then the caller goes on, untouched.
// Errors: EPERM (the caller has a tracer): `fork` was not taken and is still the caller's. Later,
// to `done`: the kernel's error of the fork, which the caller has been told; ESRCH: it died.
Status fork_and_freeze_child(ChildReaper& reaper, SyscallBroker::Call& fork,
                             FrozenProcess::Frozen done);

}  // namespace krg
