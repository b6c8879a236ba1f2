// fork_and_freeze_child(): the caller of a stopped fork is made to make the call again, under
// ptrace; its child is attached to krgd by the kernel before its first instruction.
//
// The caller leaves with PTRACE_EVENT_FORK.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/ptrace.h>

#include <csignal>
#include <optional>

#include "call_registers.h"
#include "image/frozen_process.h"
#include "image/traced_tasks.h"
#include "krg/procmgr/unnotified_cookie.h"

namespace krg {
namespace {

constexpr uint64_t kAllSignals = ~0ULL;
constexpr long kForkOptions = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;

class ForkChild : public std::enable_shared_from_this<ForkChild> {
 public:
  ForkChild(ChildReaper& reaper, pid_t caller, long number, FrozenProcess::Frozen done)
      : reaper_(reaper), caller_(caller), number_(number), done_(std::move(done)) {}

  Status begin(SyscallBroker::Call& call) {
    return stop_caller(reaper_, call, [self = shared_from_this()](const ChildEvent& event) {
      self->on_event(event);
    });
  }

 private:
  enum class State { kStopping, kEntering, kForking };

  void on_event(const ChildEvent& event) {
    const auto self = shared_from_this();
    if (event.is_end()) return done_(errno_error("the process died", ESRCH));
    const TraceStop stop = TraceStop::from(event.status);
    if (stop.kind == TraceStop::Kind::kSignal) held_signal_ = stop.signal;
    if (state_ == State::kStopping) return call_again();
    switch (stop.kind) {
      case TraceStop::Kind::kEvent:
        return on_child();
      case TraceStop::Kind::kSystemCall:
        if (state_ == State::kForking) return on_failure();
        state_ = State::kForking;
        [[fallthrough]];
      default:
        ptrace(PTRACE_SYSCALL, caller_, nullptr, nullptr);
    }
  }

  void call_again() {
    ptrace(PTRACE_GETREGS, caller_, nullptr, &registers_);
    ptrace(PTRACE_GETSIGMASK, caller_, sizeof signal_mask_, &signal_mask_);
    // A signal would end the fork with a restart.
    ptrace(PTRACE_SETSIGMASK, caller_, sizeof kAllSignals, &kAllSignals);
    ptrace(PTRACE_SETOPTIONS, caller_, nullptr, FrozenThread::kOptions | kForkOptions);
    // These calls have less than six arguments.
    const user_regs_struct& r = registers_;
    const user_regs_struct registers =
        call_registers(r, r.rip - kSyscallInstructionBytes, number_,
                       {r.rdi, r.rsi, r.rdx, r.r10, r.r8, kUnnotifiedCookie});
    ptrace(PTRACE_SETREGS, caller_, nullptr, &registers);
    state_ = State::kEntering;
    ptrace(PTRACE_SYSCALL, caller_, nullptr, nullptr);
  }

  // With the registers that it has in the kernel, and that the fork must not have changed.
  void let_caller_go() {
    reaper_.unwatch_tracee(caller_);
    user_regs_struct registers;
    if (ptrace(PTRACE_GETREGS, caller_, nullptr, &registers) == 0) {
      registers.r9 = registers_.r9;
      ptrace(PTRACE_SETREGS, caller_, nullptr, &registers);
    }
    ptrace(PTRACE_SETSIGMASK, caller_, sizeof signal_mask_, &signal_mask_);
    if (held_signal_ != 0) kill(caller_, held_signal_);
    ptrace(PTRACE_DETACH, caller_, nullptr, nullptr);
  }

  void on_failure() {
    user_regs_struct registers{};
    ptrace(PTRACE_GETREGS, caller_, nullptr, &registers);
    let_caller_go();
    done_(errno_error("fork", static_cast<int>(-static_cast<int64_t>(registers.rax))));
  }

  void on_child() {
    unsigned long message = 0;
    ptrace(PTRACE_GETEVENTMSG, caller_, nullptr, &message);
    deliver(static_cast<pid_t>(message));
    let_caller_go();
  }

  // While krgd works on the child the caller stands still: what it asked of krgd now would wait,
  // and a signal ends such a wait before krgd has taken the call up (EINTR of its next fork).
  void deliver(pid_t child) {
    if (child == 0 || !has_first_stop(child)) return done_(errno_error("the child died", ESRCH));
    ptrace(PTRACE_SETOPTIONS, child, nullptr, FrozenThread::kOptions);
    auto thread = FrozenThread::stopped(child);
    if (!thread) return done_(thread.error());
    user_regs_struct registers = thread->registers();
    registers.r9 = registers_.r9;
    thread->set_registers(registers);
    thread->set_signal_mask(signal_mask_);
    done_(FrozenProcess::adopt(reaper_, std::move(*thread)));
  }

  ChildReaper& reaper_;
  const pid_t caller_;
  const long number_;
  FrozenProcess::Frozen done_;
  State state_ = State::kStopping;
  user_regs_struct registers_{};
  uint64_t signal_mask_ = 0;
  int held_signal_ = 0;
};

}  // namespace

Status fork_and_freeze_child(ChildReaper& reaper, SyscallBroker::Call& fork,
                             FrozenProcess::Frozen done) {
  return std::make_shared<ForkChild>(reaper, fork.tid(), fork.number(), std::move(done))
      ->begin(fork);
}

}  // namespace krg
