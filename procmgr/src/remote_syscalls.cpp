// SPDX-License-Identifier: GPL-2.0-or-later
#include "remote_syscalls.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "call_registers.h"
#include "krg/procmgr/unnotified_cookie.h"

namespace krg {

Status RemoteSyscalls::borrow(ChildReaper& reaper, SyscallBroker::Call& call, Borrowed borrowed) {
  auto thread = SeizedThread::seize_and_interrupt(call.tid());
  if (!thread) return thread.error();
  std::shared_ptr<RemoteSyscalls> borrowing(
      new RemoteSyscalls(reaper, std::move(*thread), std::move(borrowed)));
  borrowing->self_ = borrowing;
  SyscallBroker::Call(std::move(call)).fail(EINTR);  // never seen by the process
  return {};
}

RemoteSyscalls::RemoteSyscalls(ChildReaper& reaper, SeizedThread thread, Borrowed borrowed)
    : reaper_(reaper),
      thread_(std::move(thread)),
      tid_(thread_->tid()),
      borrowed_(std::move(borrowed)) {
  reaper_.watch_tracee(tid_, [this](const ChildEvent& event) { on_event(event); });
}

RemoteSyscalls::~RemoteSyscalls() {
  if (state_ == State::kGone) return;
  reaper_.unwatch_tracee(tid_);
  if (state_ == State::kIdle) give_back();
}

void RemoteSyscalls::on_event(const ChildEvent& event) {
  if (event.is_end()) {
    thread_->forget();
    state_ = State::kGone;
    if (auto self = std::exchange(self_, nullptr))
      return std::exchange(borrowed_, nullptr)(errno_error("the process died", ESRCH));
    return end(-ESRCH);
  }
  const SeizedThread::Stop stop = thread_->took(event.status);
  if (stop == SeizedThread::Stop::kSignal) held_signal_ = thread_->take_signal();
  if (state_ == State::kStopping) return on_first_stop();
  if (stop != SeizedThread::Stop::kSystemCall) {  // a signal that cannot be blocked, a group stop
    thread_->resume();
    return;
  }
  if (state_ == State::kEntering) {
    state_ = State::kLeaving;
    thread_->resume();
    return;
  }
  state_ = State::kIdle;
  end(thread_->result());
}

void RemoteSyscalls::on_first_stop() {
  const uint64_t all = ~0ULL;
  auto self = std::exchange(self_, nullptr);
  auto borrowed = std::exchange(borrowed_, nullptr);
  if (ptrace(PTRACE_GETREGS, tid_, nullptr, &registers_) != 0 ||
      ptrace(PTRACE_GETSIGMASK, tid_, sizeof signal_mask_, &signal_mask_) != 0 ||
      ptrace(PTRACE_SETSIGMASK, tid_, sizeof all, &all) != 0)
    return borrowed(errno_error("borrowing the registers"));
  state_ = State::kIdle;
  borrowed(std::move(self));
}

void RemoteSyscalls::run(long number, const Arguments& arguments,
                         std::function<void(int64_t)> done) {
  if (state_ == State::kGone) return done(-ESRCH);
  check(state_ == State::kIdle, "one remote system call at a time");
  Arguments passed = arguments;
  if (number != SYS_mmap) passed[5] = kUnnotifiedCookie;  // the only one that has so many
  const user_regs_struct registers =
      call_registers(registers_, registers_.rip - kSyscallInstructionBytes, number, passed);
  if (ptrace(PTRACE_SETREGS, tid_, nullptr, &registers) != 0 || !thread_->resume())
    return done(-ESRCH);
  done_ = std::move(done);
  state_ = State::kEntering;
}

void RemoteSyscalls::end(int64_t result) {
  if (auto done = std::exchange(done_, nullptr)) done(result);
}

void RemoteSyscalls::give_back() {
  registers_.rax = static_cast<uint64_t>(result_);
  registers_.orig_rax = kNoRestart;
  ptrace(PTRACE_SETREGS, tid_, nullptr, &registers_);
  ptrace(PTRACE_SETSIGMASK, tid_, sizeof signal_mask_, &signal_mask_);
  if (held_signal_ != 0) syscall(SYS_tkill, tid_, held_signal_);
}

}  // namespace krg
