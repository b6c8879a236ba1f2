// SeizedThread: a thread of the session that krgd traces for the length of one system call. Letting
// it go (detach) lets the thread live on as if nobody had been there: with the signal that stopped
// it, or in the group stop that it was in.
//
// Threads: the loop's thread is the tracer; each step waits for the tracee's next stop, which the
// callers make sure comes at once. Source: ptrace(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <utility>

#include "krg/procmgr/syscall_broker.h"

namespace krg {

class SeizedThread {
 public:
  enum class Stop { kInterrupted, kSystemCall, kSignal, kGone };

  // Seizes a thread; PTRACE_INTERRUPT makes it stop on its way back from the call that it is in.
  // Errors: EPERM (it has a tracer, or may not be traced), ESRCH.
  static Result<SeizedThread> seize_and_interrupt(pid_t tid);
  SeizedThread(SeizedThread&& other) noexcept
      : tid_(std::exchange(other.tid_, 0)), signal_(other.signal_) {}
  SeizedThread& operator=(SeizedThread&&) = delete;
  ~SeizedThread();

  pid_t tid() const { return tid_; }
  // Waits for the next stop.
  Stop wait();
  // Takes in a stop that the ChildReaper met: `status` as waitid(2) has it in si_status.
  Stop took(int status);
  // Goes on to the next stop, system calls included.
  bool resume();
  // What the call returned, in a stop after it; -ERESTARTSYS and its like: it will be made again.
  int64_t result() const;
  // True in a stop on the way back from this system call, false in one anywhere else.
  bool comes_from(int number) const;
  // The signal that stopped it, which is then not delivered; 0 for none.
  int take_signal() { return std::exchange(signal_, 0); }
  // It has died: there is nothing to let go.
  void forget() { tid_ = 0; }

 private:
  explicit SeizedThread(pid_t tid) : tid_(tid) {}
  pid_t tid_;
  int signal_ = 0;  // to be delivered when it is let go
};

}  // namespace krg
