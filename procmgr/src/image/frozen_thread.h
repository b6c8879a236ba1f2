// FrozenThread: one thread that krgd holds in a ptrace stop. It can be had run system calls for
// krgd; afterwards it stands where it stood: its registers, signal mask and a system call that it
// was in are given back (also one that the kernel restarts). Signals wait meanwhile.
//
// The calls are waited for: they must be such as come back at once, without krgd's help. They pass
// the filter (unnotified_cookie.h).
//
// Threads: the loop's thread, which is the tracer. Owned by FrozenProcess. Source: ptrace(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/ptrace.h>
#include <sys/user.h>

#include <csignal>
#include <initializer_list>
#include <optional>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

// A stop of a thread that is traced by PTRACE_SEIZE, or its end.
struct TraceStop {
  enum class Kind { kGone, kTrap, kSystemCall, kSignal, kEvent };
  Kind kind = Kind::kGone;
  int signal =
      0;          // kSignal: to be delivered; kTrap: SIGTRAP, or that which has stopped the process
  int event = 0;  // kEvent: PTRACE_EVENT_*

  // `status` as waitid(2) has it in si_status.
  static TraceStop from(int status);
  // Waits for the next one. An end is not reaped: the ChildReaper does that and tells.
  // REQUIRES: SIGCHLD is blocked in all threads (child_reaper.h).
  static TraceStop wait(pid_t tid);
};

// Of a thread whose system call a stop has ended: what the kernel would have said had it been able
// to go on with the call by itself (ERESTARTSYS and its like, positive). None: it has, or can.
std::optional<long> restart_code(const user_regs_struct& registers);

class FrozenThread {
 public:
  // Of a system call; the sixth is the cookie unless given.
  using Arguments = std::initializer_list<uint64_t>;

  // REQUIRES: the thread is traced by this one with kOptions and in a kTrap stop.
  // Errors: ESRCH; ENOTSUP: it runs 32-bit code.
  static Result<FrozenThread> stopped(pid_t tid, int stop_signal = 0);
  // What a thread that is to be frozen is seized with: it dies with krgd. The kernel lets the
  // tracees of one that ends go before it ends the others of its session, and what is frozen may
  // run on another node already.
  static constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  FrozenThread(FrozenThread&& other) noexcept;
  FrozenThread& operator=(FrozenThread&&) = delete;
  ~FrozenThread() { let_go(); }

  pid_t tid() const { return tid_; }
  bool is_gone() const { return tid_ == 0; }
  // What it goes on with.
  const user_regs_struct& registers() const { return registers_; }
  uint64_t signal_mask() const { return signal_mask_; }
  void set_registers(const user_regs_struct& registers);
  void set_signal_mask(uint64_t mask);
  // The signal that has stopped the process by job control; 0: none.
  int stop_signal() const { return stop_signal_; }

  // Runs a system call at `instruction`, a `syscall`. Returns what the kernel did, -ESRCH when the
  // thread has died.
  int64_t call(RemoteAddr instruction, long number, Arguments arguments);
  // A clone(2) or clone3(2); the new task is traced, too, and in a kTrap stop. `made`: its pid.
  int64_t call_clone(RemoteAddr instruction, long number, Arguments arguments, pid_t& made);

  // Makes a call that would wait, and interrupts it at once: the kernel remembers it then.
  int64_t call_and_interrupt(RemoteAddr instruction, long number, Arguments arguments);

  // Runs code of krgd's with those registers till it has sent itself SIGTRAP, standing at `end`
  // then. `others` gets what of that signal others have sent meanwhile, to be sent again. False: it
  // has died.
  bool run_code(const user_regs_struct& registers, RemoteAddr end, std::vector<siginfo_t>& others);

  // Begins an execve without waiting for it: it stops at the kernel's door, then when it has execed
  // (PTRACE_EVENT_EXEC), or, where that failed, behind the call. False: it has died.
  bool begin_exec(RemoteAddr instruction, long number, Arguments arguments);
  // Behind a begin_exec() that failed: why (-errno). It stands as before.
  int64_t end_exec();

  // Stands in a kTrap stop with its own registers and mask again.
  Status settle();
  // settle(), then runs on without krgd.
  void let_go();
  // Runs on without krgd, with that system call and all signals blocked: for execve.
  Status let_go_into(RemoteAddr instruction, long number, Arguments arguments);
  // It has died: there is nothing to let go.
  void forget() { tid_ = 0; }

 private:
  explicit FrozenThread(pid_t tid) : tid_(tid) {}
  bool borrow();
  bool point_at(RemoteAddr instruction, long number, Arguments arguments);
  bool enter(RemoteAddr instruction, long number, Arguments arguments);
  TraceStop resume_to_stop(int request, bool also_traps = false);
  int64_t result();

  pid_t tid_;
  user_regs_struct registers_{};
  uint64_t signal_mask_ = 0;
  int stop_signal_ = 0;
  bool is_changed_ = false;   // registers or mask are not the kernel's
  bool is_borrowed_ = false;  // a system call of krgd's has run since the last kTrap stop
  bool holds_stop_ = false;   // SIGSTOP came meanwhile
};

}  // namespace krg
