// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/frozen_thread.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <ctime>
#include <optional>
#include <utility>

#include "call_registers.h"
#include "kernel_values.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "process_status.h"

namespace krg {
namespace {

constexpr uint64_t kAllSignals = ~0ULL;
constexpr uint64_t kSegmentOf64BitCode = 0x33;
constexpr long kCloneOptions = PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
constexpr timespec kDeathCheckPeriod{0, 20'000'000};

// SIGCHLD that a wait here has taken is there again afterwards, for the ChildReaper.
class ChildSignals {
 public:
  ChildSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGCHLD);
  }
  ChildSignals(const ChildSignals&) = delete;
  ~ChildSignals() {
    if (was_taken_) kill(getpid(), SIGCHLD);
  }
  // False after a while without one.
  bool wait() {
    const bool came = sigtimedwait(&set_, nullptr, &kDeathCheckPeriod) == SIGCHLD;
    was_taken_ |= came;
    return came;
  }

 private:
  sigset_t set_;
  bool was_taken_ = false;
};

// Calls that fail with EINTR when their thread was merely stopped (signal(7)): the kernel would
// have gone on with them for the asking.
bool is_interrupted_by_stops(uint64_t number) {
  static constexpr std::array<uint64_t, 7> kCalls = {
      SYS_epoll_wait, SYS_epoll_pwait,     SYS_epoll_pwait2, SYS_semop,
      SYS_semtimedop, SYS_rt_sigtimedwait, SYS_io_getevents};
  return std::find(kCalls.begin(), kCalls.end(), number) != kCalls.end();
}

// Calls that a file system in user space (krgfs and its streams) may have been asked to break off:
// it can answer EINTR, but not that the call is to be made again, as a pipe or terminal of the
// kernel does (fuse(4)).
bool is_broken_off_by_server(uint64_t number) {
  static constexpr std::array<uint64_t, 14> kCalls = {
      SYS_read,     SYS_readv,   SYS_pread64,  SYS_preadv, SYS_preadv2,  SYS_write,  SYS_writev,
      SYS_pwrite64, SYS_pwritev, SYS_pwritev2, SYS_splice, SYS_sendfile, SYS_openat, SYS_open};
  return std::find(kCalls.begin(), kCalls.end(), number) != kCalls.end();
}

}  // namespace

std::optional<long> restart_code(const user_regs_struct& registers) {
  if (static_cast<int64_t>(registers.rax) != -EINTR) return std::nullopt;
  if (is_interrupted_by_stops(registers.orig_rax)) return -kRestartUnlessHandled;
  if (is_broken_off_by_server(registers.orig_rax)) return -kRestartSystemCall;
  return std::nullopt;
}

TraceStop TraceStop::from(int status) {
  constexpr int kSystemCallStop = SIGTRAP | 0x80;  // PTRACE_O_TRACESYSGOOD
  if (status == kSystemCallStop) return {.kind = Kind::kSystemCall};
  const int signal = status & 0x7f, event = status >> 8;
  if (event == PTRACE_EVENT_STOP) return {.kind = Kind::kTrap, .signal = signal};
  if (event != 0) return {.kind = Kind::kEvent, .event = event};
  return {.kind = Kind::kSignal, .signal = signal};
}

TraceStop TraceStop::wait(pid_t tid) {
  ChildSignals signals;
  for (;;) {
    siginfo_t info{};
    const auto id = static_cast<id_t>(tid);
    // A main thread whose process was killed tells its end only when all others have been reaped.
    if (waitid(P_PID, id, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) != 0) {
      if (errno != EINTR) return {};
      continue;
    }
    if (info.si_pid != 0) {
      if (info.si_code != CLD_TRAPPED) return {};
      waitid(P_PID, id, &info, WSTOPPED | WNOHANG | __WALL);
      return from(info.si_status);
    }
    if (signals.wait()) continue;
    auto stat = read_process_stat(tid);
    if (!stat || stat->is_zombie()) return {};
  }
}

Result<FrozenThread> FrozenThread::stopped(pid_t tid, int stop_signal) {
  FrozenThread thread(tid);
  thread.stop_signal_ = stop_signal == SIGTRAP ? 0 : stop_signal;
  const auto fail = [&](Error why) {
    ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
    thread.forget();
    return why;
  };
  if (ptrace(PTRACE_GETREGS, tid, nullptr, &thread.registers_) != 0 ||
      ptrace(PTRACE_GETSIGMASK, tid, sizeof thread.signal_mask_, &thread.signal_mask_) != 0)
    return fail(errno_error("the process died", ESRCH));
  if (thread.registers_.cs != kSegmentOf64BitCode)
    return fail(errno_error("it runs 32-bit code", ENOTSUP));
  if (const auto code = restart_code(thread.registers_)) {
    thread.registers_.rax = static_cast<uint64_t>(-*code);
    thread.is_changed_ = true;
  }
  return thread;
}

FrozenThread::FrozenThread(FrozenThread&& other) noexcept
    : tid_(std::exchange(other.tid_, 0)),
      registers_(other.registers_),
      signal_mask_(other.signal_mask_),
      stop_signal_(other.stop_signal_),
      is_changed_(other.is_changed_),
      is_borrowed_(other.is_borrowed_),
      holds_stop_(other.holds_stop_) {}

void FrozenThread::set_registers(const user_regs_struct& registers) {
  registers_ = registers;
  is_changed_ = true;
}

void FrozenThread::set_signal_mask(uint64_t mask) {
  signal_mask_ = mask;
  is_changed_ = true;
}

bool FrozenThread::borrow() {
  if (is_gone()) return false;
  if (is_borrowed_) return true;
  is_borrowed_ = ptrace(PTRACE_SETSIGMASK, tid_, sizeof kAllSignals, &kAllSignals) == 0;
  return is_borrowed_;
}

// To the next stop that is not because of a signal that cannot be blocked. `also_traps`: SIGTRAP is
// not blocked, and a stop.
TraceStop FrozenThread::resume_to_stop(int request, bool also_traps) {
  for (;;) {
    TraceStop stop;
    if (!is_gone() && ptrace(static_cast<__ptrace_request>(request), tid_, nullptr, nullptr) == 0)
      stop = TraceStop::wait(tid_);
    if (stop.kind == TraceStop::Kind::kGone) forget();
    if (stop.kind != TraceStop::Kind::kSignal || (also_traps && stop.signal == SIGTRAP))
      return stop;
    holds_stop_ |= stop.signal == SIGSTOP;
  }
}

bool FrozenThread::point_at(RemoteAddr instruction, long number, Arguments arguments) {
  if (!borrow()) return false;
  std::array<uint64_t, 6> a{};
  a[5] = kUnnotifiedCookie;
  std::copy_n(arguments.begin(), std::min(arguments.size(), a.size()), a.begin());
  const user_regs_struct registers = call_registers(registers_, instruction.value, number, a);
  return ptrace(PTRACE_SETREGS, tid_, nullptr, &registers) == 0;
}

// Stands at the kernel's door then.
bool FrozenThread::enter(RemoteAddr instruction, long number, Arguments arguments) {
  if (!point_at(instruction, number, arguments)) return false;
  TraceStop stop;
  do stop = resume_to_stop(PTRACE_SYSCALL);
  while (stop.kind == TraceStop::Kind::kTrap);
  return stop.kind == TraceStop::Kind::kSystemCall;
}

int64_t FrozenThread::result() {
  user_regs_struct registers;
  if (is_gone() || ptrace(PTRACE_GETREGS, tid_, nullptr, &registers) != 0) return -ESRCH;
  return static_cast<int64_t>(registers.rax);
}

int64_t FrozenThread::call(RemoteAddr instruction, long number, Arguments arguments) {
  if (!enter(instruction, number, arguments)) return -ESRCH;
  if (resume_to_stop(PTRACE_SYSCALL).kind != TraceStop::Kind::kSystemCall) return -ESRCH;
  return result();
}

int64_t FrozenThread::call_clone(RemoteAddr instruction, long number, Arguments arguments,
                                 pid_t& made) {
  made = 0;
  if (!enter(instruction, number, arguments)) return -ESRCH;
  ptrace(PTRACE_SETOPTIONS, tid_, nullptr, kOptions | kCloneOptions);
  TraceStop stop = resume_to_stop(PTRACE_SYSCALL);
  if (stop.kind == TraceStop::Kind::kEvent) {
    unsigned long message = 0;
    ptrace(PTRACE_GETEVENTMSG, tid_, nullptr, &message);
    made = static_cast<pid_t>(message);
    if (TraceStop::wait(made).kind == TraceStop::Kind::kTrap)
      ptrace(PTRACE_SETOPTIONS, made, nullptr, kOptions);
    stop = resume_to_stop(PTRACE_SYSCALL);
  }
  if (stop.kind != TraceStop::Kind::kSystemCall) return -ESRCH;
  ptrace(PTRACE_SETOPTIONS, tid_, nullptr, kOptions);
  return result();
}

int64_t FrozenThread::call_and_interrupt(RemoteAddr instruction, long number, Arguments arguments) {
  if (!enter(instruction, number, arguments) ||
      ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr) != 0)
    return -ESRCH;
  if (resume_to_stop(PTRACE_SYSCALL).kind != TraceStop::Kind::kSystemCall) return -ESRCH;
  return result();
}

bool FrozenThread::run_code(const user_regs_struct& registers, RemoteAddr end,
                            std::vector<siginfo_t>& others) {
  constexpr uint64_t kAllButTrap = kAllSignals & ~(uint64_t{1} << (SIGTRAP - 1));
  if (!borrow() || ptrace(PTRACE_SETREGS, tid_, nullptr, &registers) != 0 ||
      ptrace(PTRACE_SETSIGMASK, tid_, sizeof kAllButTrap, &kAllButTrap) != 0)
    return false;
  for (bool is_at_end = false; !is_at_end;) {
    const TraceStop stop = resume_to_stop(PTRACE_CONT, true);
    if (stop.kind == TraceStop::Kind::kTrap) continue;
    user_regs_struct now;
    siginfo_t info;
    if (stop.kind != TraceStop::Kind::kSignal || ptrace(PTRACE_GETREGS, tid_, nullptr, &now) != 0 ||
        ptrace(PTRACE_GETSIGINFO, tid_, nullptr, &info) != 0)
      return false;
    is_at_end = now.rip == end.value;
    // One that waits already takes in the same signal that comes later.
    if (!is_at_end || info.si_code != SI_TKILL || info.si_pid != static_cast<pid_t>(now.r14))
      others.push_back(info);
  }
  return ptrace(PTRACE_SETSIGMASK, tid_, sizeof kAllSignals, &kAllSignals) == 0;
}

bool FrozenThread::begin_exec(RemoteAddr instruction, long number, Arguments arguments) {
  const long wanted = kOptions | PTRACE_O_TRACEEXEC;
  return point_at(instruction, number, arguments) &&
         ptrace(PTRACE_SETOPTIONS, tid_, nullptr, wanted) == 0 &&
         ptrace(PTRACE_SYSCALL, tid_, nullptr, nullptr) == 0;
}

int64_t FrozenThread::end_exec() {
  ptrace(PTRACE_SETOPTIONS, tid_, nullptr, kOptions);
  return result();
}

Status FrozenThread::settle() {
  const Error died = errno_error("the process died", ESRCH);
  if (is_gone()) return died;
  if (is_borrowed_) {
    // The kernel looks at restarts and signals on its way out of this stop, not out of one at a
    // system call.
    if (ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr) != 0 ||
        resume_to_stop(PTRACE_CONT).kind != TraceStop::Kind::kTrap)
      return died;
  }
  if (is_borrowed_ || is_changed_)
    if (ptrace(PTRACE_SETREGS, tid_, nullptr, &registers_) != 0 ||
        ptrace(PTRACE_SETSIGMASK, tid_, sizeof signal_mask_, &signal_mask_) != 0)
      return died;
  is_borrowed_ = is_changed_ = false;
  // It waits again, for whoever reads what does.
  if (std::exchange(holds_stop_, false)) kill(tid_, SIGSTOP);
  return {};
}

void FrozenThread::let_go() {
  if (is_gone()) return;
  if (!settle()) return forget();
  ptrace(PTRACE_DETACH, tid_, nullptr, nullptr);
  forget();
}

Status FrozenThread::let_go_into(RemoteAddr instruction, long number, Arguments arguments) {
  const bool gone = !point_at(instruction, number, arguments) ||
                    ptrace(PTRACE_DETACH, tid_, nullptr, nullptr) != 0;
  forget();
  if (gone) return errno_error("the process died", ESRCH);
  return {};
}

}  // namespace krg
