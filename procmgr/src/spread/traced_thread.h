// TracedThread: a thread that krgd traces for long, at home or in a replica. Unlike FrozenThread it
// is never waited for: each stop comes by callback, because what the thread does meanwhile may need
// krgd (pages, system calls that krgd answers).
//
// Threads: the loop's thread, which is the tracer. Owned by SpreadProcess or Replica. Invariant:
// `stopped` runs only between resume() and the next stop. Source: ptrace(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/ptrace.h>
#include <sys/user.h>

#include <array>
#include <csignal>
#include <functional>
#include <memory>
#include <optional>

#include "image/frozen_thread.h"
#include "krg/procmgr/child_reaper.h"
#include "spread/thread_state.h"

namespace krg {

// PTRACE_SYSEMU: on to the next system call, which the kernel does not carry out.
inline constexpr auto kSystemCallsAreOurs = static_cast<__ptrace_request>(31);
// PTRACE_SYSEMU_SINGLESTEP: or past one instruction.
inline constexpr auto kStepOrOurs = static_cast<__ptrace_request>(32);

class TracedThread {
 public:
  using Arguments = std::array<uint64_t, 6>;

  // REQUIRES: this thread traces `tid`, with PTRACE_O_TRACESYSGOOD. `stopped` gets its stops; it
  // may destroy this object.
  TracedThread(ChildReaper& reaper, pid_t tid, std::function<void(const TraceStop&)> stopped);
  TracedThread(const TracedThread&) = delete;
  TracedThread& operator=(const TracedThread&) = delete;
  ~TracedThread();

  pid_t tid() const { return tid_; }

  // Of a stopped thread. Errors: ESRCH.
  Result<user_regs_struct> registers() const;
  Status set_registers(const user_regs_struct& registers);
  Result<user_fpregs_struct> vector_registers() const;
  Result<ThreadState> state() const;
  Status set_extended_state(const std::string& state);
  Status set_options(long options);
  // In a stop at a system call: whether it is the one before the call.
  bool is_at_entry() const;
  // Of the signal that has stopped it. Errors: ESRCH.
  Result<siginfo_t> signal_info() const;
  // Of a stopped thread: whether signals of its own wait, blocked or not; true where that is not
  // known.
  bool may_have_own_signals() const;
  // Of one that has died, as wait(2) tells it.
  int end_status() const { return end_status_; }
  // The pid that a PTRACE_EVENT_CLONE or PTRACE_EVENT_FORK tells.
  pid_t new_task() const;

  // Goes on to the next stop, as `request` says. One that has died is told of as kGone.
  void resume(__ptrace_request request, int signal = 0);
  void interrupt();
  // Whether interrupt() has ended what it did before this stop. Any stop is one that interrupt()
  // asked for: none other follows.
  bool was_interrupted() const { return was_interrupted_; }
  // Whether it was resumed by PTRACE_SYSEMU last: it stands before a call that the kernel leaves
  // out.
  bool was_emulated() const { return was_emulated_; }
  void detach();

  // Has it stand still, soon: in the stop that it is in, or in one that comes of an interruption.
  // `stands` runs then, or when it has died or is not watched any more. Its stops are told of as
  // ever, but what resumes it waits for release().
  void hold(std::function<void()> stands);
  void release();
  // Held, in a stop, and told to go on from it without a signal: nothing else is to come of it.
  bool is_settled() const;

  // For a debugger: the next time that it goes on with its program, for one instruction (a system
  // call is one, however long it takes). `stepped` runs when it stands behind it, held; nobody
  // else is told of that stop. Till end_step().
  void step(std::function<void()> stepped);
  void end_step() { stepped_ = nullptr; }
  // Whether a SIGTRAP tells of an instruction that has been stepped.
  static bool is_of_step(const siginfo_t& info) {
    return info.si_code == TRAP_TRACE || info.si_code == TRAP_BRKPT;
  }

  bool is_stopped() const { return is_stopped_; }
  const TraceStop& last_stop() const { return last_stop_; }
  // It stays in its stop, and is another one's to watch: before this is destroyed.
  void give_up();

  // Has a stopped thread make a system call at `instruction`, all signals blocked; then it stands
  // with the registers that it had. `done` gets the result, -ESRCH when it has died (before
  // `stopped` is told so). `cloned` gets the thread or process that the call
  // makes.
  void call(RemoteAddr instruction, long number, const Arguments& arguments,
            std::function<void(int64_t)> done, std::function<void(pid_t)> cloned = {});

 private:
  void on_stop(const TraceStop& stop);
  void on_stop_in_call(const TraceStop& stop);
  void end_call(int64_t result);
  __ptrace_request step_by(__ptrace_request request) const;
  bool is_behind_call() const;
  bool has_stepped(const TraceStop& stop) const;
  void stand_behind_step(__ptrace_request request, int signal);

  ChildReaper& reaper_;
  const pid_t tid_;
  std::function<void(const TraceStop&)> stopped_;
  std::function<void(int64_t)> done_;
  std::function<void(pid_t)> cloned_;
  user_regs_struct kept_registers_{};
  uint64_t kept_mask_ = 0;
  struct Resumption {
    __ptrace_request request;
    int signal;
  };
  TraceStop last_stop_{};
  int end_status_ = 0;
  bool is_stopped_ = false;
  bool is_interrupted_ = false, was_interrupted_ = false;
  bool was_emulated_ = false;
  bool is_held_ = false;
  std::function<void()> stands_;
  std::optional<Resumption> resumption_;  // that waits
  std::function<void()> stepped_;
  bool is_stepping_ = false;       // has gone on for it
  __ptrace_request goes_on_by_{};  // once it has stepped
};

}  // namespace krg
