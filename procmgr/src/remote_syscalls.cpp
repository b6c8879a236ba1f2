// SPDX-License-Identifier: GPL-2.0-or-later
#include "remote_syscalls.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include <optional>
#include <utility>

#include "call_registers.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "seized_thread.h"

namespace krg {
namespace {

// Of a thread that nobody traces: it is seized, and let go afterwards.
class SeizedSyscalls : public RemoteSyscalls {
 public:
  static void begin(ChildReaper& reaper, SeizedThread thread, Borrowed borrowed);
  ~SeizedSyscalls() override;
  SeizedSyscalls(const SeizedSyscalls&) = delete;
  SeizedSyscalls& operator=(const SeizedSyscalls&) = delete;

  void run(long number, const Arguments& arguments, std::function<void(int64_t)> done) override;

 private:
  enum class State { kStopping, kIdle, kEntering, kLeaving, kGone };

  SeizedSyscalls(ChildReaper& reaper, SeizedThread thread, Borrowed borrowed);
  void on_event(const ChildEvent& event);
  void on_first_stop();
  void end(int64_t result);
  void give_back();

  ChildReaper& reaper_;
  std::optional<SeizedThread> thread_;
  State state_ = State::kStopping;
  std::shared_ptr<RemoteSyscalls> self_;  // until it is borrowed
  Borrowed borrowed_;
  std::function<void(int64_t)> done_;
  user_regs_struct registers_{};
  uint64_t signal_mask_ = 0;
  int held_signal_ = 0;
};

}  // namespace

RemoteSyscalls::Arguments RemoteSyscalls::passing(long number, Arguments arguments) {
  if (number != SYS_mmap) arguments[5] = kUnnotifiedCookie;  // the only one that has so many
  return arguments;
}

Status RemoteSyscalls::borrow(ChildReaper& reaper, SyscallBroker::Call& call, Borrowed borrowed) {
  auto thread = SeizedThread::seize_and_interrupt(call.tid());
  if (!thread) return thread.error();
  SeizedSyscalls::begin(reaper, std::move(*thread), std::move(borrowed));
  SyscallBroker::Call(std::move(call)).fail(EINTR);  // never seen by the process
  return {};
}

namespace {

void SeizedSyscalls::begin(ChildReaper& reaper, SeizedThread thread, Borrowed borrowed) {
  std::shared_ptr<SeizedSyscalls> borrowing(
      new SeizedSyscalls(reaper, std::move(thread), std::move(borrowed)));
  borrowing->self_ = borrowing;
}

SeizedSyscalls::SeizedSyscalls(ChildReaper& reaper, SeizedThread thread, Borrowed borrowed)
    : RemoteSyscalls(thread.tid()),
      reaper_(reaper),
      thread_(std::move(thread)),
      borrowed_(std::move(borrowed)) {
  reaper_.watch_tracee(tid(), [this](const ChildEvent& event) { on_event(event); });
}

SeizedSyscalls::~SeizedSyscalls() {
  if (state_ == State::kGone) return;
  reaper_.unwatch_tracee(tid());
  if (state_ == State::kIdle) give_back();
}

void SeizedSyscalls::on_event(const ChildEvent& event) {
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

void SeizedSyscalls::on_first_stop() {
  const uint64_t all = ~0ULL;
  auto self = std::exchange(self_, nullptr);
  auto borrowed = std::exchange(borrowed_, nullptr);
  if (ptrace(PTRACE_GETREGS, tid(), nullptr, &registers_) != 0 ||
      ptrace(PTRACE_GETSIGMASK, tid(), sizeof signal_mask_, &signal_mask_) != 0 ||
      ptrace(PTRACE_SETSIGMASK, tid(), sizeof all, &all) != 0)
    return borrowed(errno_error("borrowing the registers"));
  state_ = State::kIdle;
  borrowed(std::move(self));
}

void SeizedSyscalls::run(long number, const Arguments& arguments,
                         std::function<void(int64_t)> done) {
  if (state_ == State::kGone) return done(-ESRCH);
  check(state_ == State::kIdle, "one remote system call at a time");
  const user_regs_struct registers = call_registers(
      registers_, registers_.rip - kSyscallInstructionBytes, number, passing(number, arguments));
  if (ptrace(PTRACE_SETREGS, tid(), nullptr, &registers) != 0 || !thread_->resume())
    return done(-ESRCH);
  done_ = std::move(done);
  state_ = State::kEntering;
}

void SeizedSyscalls::end(int64_t result) {
  if (auto done = std::exchange(done_, nullptr)) done(result);
}

void SeizedSyscalls::give_back() {
  registers_.rax = static_cast<uint64_t>(result());
  registers_.orig_rax = kNoRestart;
  ptrace(PTRACE_SETREGS, tid(), nullptr, &registers_);
  ptrace(PTRACE_SETSIGMASK, tid(), sizeof signal_mask_, &signal_mask_);
  if (held_signal_ != 0) syscall(SYS_tkill, tid(), held_signal_);
}

}  // namespace
}  // namespace krg
