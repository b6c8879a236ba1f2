// WaitingCalls: system calls in krgd's hand that wait for something, for as long as the program
// likes. The filter's listener lets only a fatal signal end such a wait (WAIT_KILLABLE_RECV), so
// krgd itself looks, at a modest rate, whether the caller has a signal to take, has to stop, or has
// died, and tells the call's owner to end the wait. The owner stays the judge: it takes the call
// back with finish() and answers it, or interrupted() does as the kernel does for that call.
//
// A wait that a signal ends is answered with EINTR, or with one of the kernel's own restart codes
// (ERESTARTNOHAND, ERESTARTSYS), which only a thread with a signal pending turns into EINTR or into
// the call made again. That one is pending is certain when only this thread can take it; else the
// thread is seized (ptrace) for a moment, which counts as a signal.
//
// Threads: the loop's thread. Owned by Ipc.
// Source: signal(7) on interrupted calls; kernel/seccomp.c, arch/x86/kernel/signal.c of Linux 6.1.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <vector>

#include "exit_watch.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

class WaitingCalls {
 public:
  using Call = SyscallBroker::Call;
  using Clock = std::chrono::steady_clock;

  enum class Why { kSignal, kTimeout, kGone };
  // What becomes of a call that a signal interrupts.
  enum class Restart {
    kNever,           // EINTR; made again when the caller was merely to be frozen
    kWithoutHandler,  // EINTR after a handler; made again when none ran
    kAsHandlerSays,   // made again, also after a handler with SA_RESTART
    kAlways,          // made again, whatever the handler says
  };
  struct Wait {
    std::optional<Clock::time_point> deadline;
    Restart restart = Restart::kNever;
    // Called once at the most, not from within begin(): the wait should end.
    std::function<void(Why)> end;
    // May be empty: whether krgd is about to freeze the caller, which counts as a signal.
    std::function<bool()> has_to_stop = {};
  };

  // `exits` has to tell process_ended().
  WaitingCalls(EventLoop& loop, ExitWatch& exits);
  WaitingCalls(const WaitingCalls&) = delete;
  WaitingCalls& operator=(const WaitingCalls&) = delete;

  // Keeps a call of a thread of `process`; its number.
  uint64_t begin(Call call, pid_t process, Wait wait);
  // nullptr: finished.
  const Call* find(uint64_t number) const;
  // Takes it out, to be answered. REQUIRES: find(number).
  Call finish(uint64_t number);
  // Ends a wait because of the signal that end(kSignal) told of. REQUIRES: find(number).
  void interrupted(uint64_t number);
  // Whose calls do not wait, since they are about to be frozen; asked for those without
  // has_to_stop.
  void end_if(std::function<bool(pid_t process)> has_to_stop) {
    has_to_stop_ = std::move(has_to_stop);
  }
  // A process has ended: its waits are told now.
  void process_ended(pid_t process);
  size_t size() const { return waits_.size(); }

 private:
  struct Entry {
    Call call;
    Wait wait;
    pid_t process;
    Clock::time_point next_look;
    std::chrono::milliseconds pause;
    bool told = false;
    bool saw_shared_signal = false;
  };
  using Ends = std::vector<std::pair<uint64_t, Why>>;
  void look_at_due();
  std::optional<Why> reason(Entry& entry, Clock::time_point now);
  std::optional<Why> look(Entry& entry);
  bool has_to_stop(const Entry& entry) const;
  void schedule(Clock::time_point when);
  void tell(const Ends& over);

  EventLoop& loop_;
  ExitWatch& exits_;
  std::function<bool(pid_t)> has_to_stop_;
  std::map<uint64_t, Entry> waits_;
  uint64_t next_number_ = 1;
  EventLoop::Timer timer_;
  Clock::time_point timer_at_ = Clock::time_point::max();
};

// What the kernel calls its restart codes (linux/errno.h, not for programs).
inline constexpr int kRestartAsHandlerSays = 512;   // ERESTARTSYS
inline constexpr int kRestartAlways = 513;          // ERESTARTNOINTR
inline constexpr int kRestartWithoutHandler = 514;  // ERESTARTNOHAND

}  // namespace krg
