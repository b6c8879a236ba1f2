// RemoteSyscalls: system calls that a stopped process runs for krgd. It takes a thread that waits
// in a stopped (notified) system call, borrows its registers, has it run system calls at the same
// instruction, and gives everything back: the stopped call then returns what krgd says. Nothing is
// written into the process's memory; signals wait meanwhile.
//
// Each call completes by callback, because it may itself wait for krgd (unmapping memory that is
// served by userfaultfd does). The filter stops these calls as it stops the program's own: they
// must be ones that pass it (unnotified_cookie.h).
//
// A thread that krgd traces for long already (of a spread process) is lent by who traces it
// (krg/procmgr/thread_lender.h).
//
// Threads: the loop's thread, which is the tracer. Owned by who runs the calls (shared: callbacks
// hold it). Invariant: the thread goes on when this object goes, its call failing with EINTR if
// nothing else was said. Source: ptrace(2), seccomp_unotify(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>

#include "krg/procmgr/child_reaper.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

class RemoteSyscalls {
 public:
  using Borrowed = std::function<void(Result<std::shared_ptr<RemoteSyscalls>>)>;
  using Arguments = std::array<uint64_t, 6>;

  // Errors: of PTRACE_SEIZE (EPERM: it has a tracer): `call` was not taken and is still the
  // caller's; ESRCH: the thread died. `borrowed` runs later, in the loop.
  static Status borrow(ChildReaper& reaper, SyscallBroker::Call& call, Borrowed borrowed);
  RemoteSyscalls(const RemoteSyscalls&) = delete;
  RemoteSyscalls& operator=(const RemoteSyscalls&) = delete;
  virtual ~RemoteSyscalls() = default;

  // Runs one call; `done` gets what the kernel returned (-ESRCH too when the thread has died).
  // REQUIRES: none is under way.
  virtual void run(long number, const Arguments& arguments, std::function<void(int64_t)> done) = 0;
  // What the borrowed call returns when the thread is let go: a value or -errno.
  void set_result(int64_t result) { result_ = result; }
  pid_t tid() const { return tid_; }

 protected:
  explicit RemoteSyscalls(pid_t tid) : tid_(tid) {}
  int64_t result() const { return result_; }
  // With the cookie by which the filter lets it pass.
  static Arguments passing(long number, Arguments arguments);

 private:
  const pid_t tid_;
  int64_t result_ = -EINTR;
};

}  // namespace krg
