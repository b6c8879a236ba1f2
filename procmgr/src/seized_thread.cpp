// SPDX-License-Identifier: GPL-2.0-or-later
#include "seized_thread.h"

#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <csignal>

namespace krg {
namespace {

constexpr int kSystemCallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD

}  // namespace

Result<SeizedThread> SeizedThread::seize_and_interrupt(pid_t tid) {
  if (ptrace(PTRACE_SEIZE, tid, nullptr, PTRACE_O_TRACESYSGOOD) != 0)
    return errno_error("PTRACE_SEIZE");
  SeizedThread thread(tid);
  if (ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr) != 0) return errno_error("PTRACE_INTERRUPT");
  return thread;
}

SeizedThread::~SeizedThread() {
  if (tid_ != 0) ptrace(PTRACE_DETACH, tid_, nullptr, signal_);
}

SeizedThread::Stop SeizedThread::wait() {
  int status = 0;
  pid_t waited;
  do {
    waited = waitpid(tid_, &status, __WALL);
  } while (waited < 0 && errno == EINTR);
  if (waited != tid_ || !WIFSTOPPED(status)) {
    forget();
    return Stop::kGone;
  }
  return took(status >> 8);
}

SeizedThread::Stop SeizedThread::took(int status) {
  signal_ = 0;
  if (status == kSystemCallStop) return Stop::kSystemCall;
  if (status >> 8 == PTRACE_EVENT_STOP) return Stop::kInterrupted;
  signal_ = status & 0x7f;
  return Stop::kSignal;
}

bool SeizedThread::resume() {
  return ptrace(PTRACE_SYSCALL, tid_, nullptr, signal_) == 0;
}

int64_t SeizedThread::result() const {
  user_regs_struct registers;
  if (ptrace(PTRACE_GETREGS, tid_, nullptr, &registers) != 0) return -ESRCH;
  return static_cast<int64_t>(registers.rax);
}

bool SeizedThread::comes_from(int number) const {
  user_regs_struct registers;
  return ptrace(PTRACE_GETREGS, tid_, nullptr, &registers) == 0 &&
         static_cast<int64_t>(registers.orig_rax) == number;
}

}  // namespace krg
