// SPDX-License-Identifier: GPL-2.0-or-later
#include "shadow.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <csignal>
#include <optional>

#include "call_registers.h"
#include "krg/procmgr/syscall_filter.h"
#include "krg/runtime/unix_socket.h"

namespace krg {
namespace {

constexpr size_t kMaxPathBytes = 4096;

// A process that is stopped by ptrace; let go of when this goes.
class PtraceStop {
 public:
  // REQUIRES: the process waits in a stopped system call. Errors: of PTRACE_SEIZE.
  static Result<PtraceStop> seize(pid_t pid) {
    if (ptrace(PTRACE_SEIZE, pid, 0, 0) != 0) return errno_error("PTRACE_SEIZE");
    return PtraceStop(pid);
  }
  PtraceStop(PtraceStop&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  PtraceStop& operator=(PtraceStop&&) = delete;
  ~PtraceStop() {
    if (pid_ > 0) ptrace(PTRACE_DETACH, pid_, 0, 0);
  }

  // Asks for a stop before the process next executes an instruction of its own.
  Status interrupt() {
    if (ptrace(PTRACE_INTERRUPT, pid_, 0, 0) != 0) return errno_error("PTRACE_INTERRUPT");
    return {};
  }
  // Waits for that stop. Errors: ESRCH when the process died.
  Status wait() {
    int status;
    pid_t got;
    do got = waitpid(pid_, &status, __WALL);
    while (got < 0 && errno == EINTR);
    if (got == pid_ && WIFSTOPPED(status)) return {};
    pid_ = 0;
    return errno_error("the process died", ESRCH);
  }
  Status call_at_last_instruction(long number, std::array<uint64_t, 6> args) {
    user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, pid_, 0, &regs) != 0) return errno_error("PTRACE_GETREGS");
    regs = call_registers(regs, regs.rip - kSyscallInstructionBytes, number, args);
    if (ptrace(PTRACE_SETREGS, pid_, 0, &regs) != 0) return errno_error("PTRACE_SETREGS");
    return {};
  }
  Status block_all_signals() {
    const uint64_t all = ~0ULL;
    if (ptrace(PTRACE_SETSIGMASK, pid_, sizeof all, &all) != 0)
      return errno_error("PTRACE_SETSIGMASK");
    return {};
  }

 private:
  explicit PtraceStop(pid_t pid) : pid_(pid) {}
  pid_t pid_;
};

// Where the path argument of the stopped execve or execveat is, and where its argv.
struct ExecArguments {
  RemoteAddr path, argv;
};
ExecArguments arguments_of(const SyscallBroker::Call& exec) {
  const unsigned first = exec.number() == SYS_execveat ? 1 : 0;
  return {RemoteAddr{exec.arg(first)}, RemoteAddr{exec.arg(first + 1)}};
}

// Everything from the moment that the process cannot go back.
Status redirect(SyscallBroker::Call exec, PtraceStop& tracee, RemoteAddr empty_string, int control,
                int program) {
  const RemoteAddr argv = arguments_of(exec).argv;
  if (auto put = exec.put_fd(control, kShadowControlFd, false); !put) return put;
  if (auto put = exec.put_fd(program, kShadowProgramFd, true); !put) return put;
  if (auto asked = tracee.interrupt(); !asked) return asked;
  exec.fail(EINTR);  // never seen by the process
  if (auto stopped = tracee.wait(); !stopped) return stopped;
  // argv stays, so that those who look at the node from outside of the session see what it is.
  auto redirected = tracee.call_at_last_instruction(
      SYS_execveat,
      {kShadowProgramFd, empty_string.value, argv.value, 0, AT_EMPTY_PATH, kUnnotifiedCookie});
  if (!redirected) return redirected;
  // From here on signals wait until the shadow reads them.
  return tracee.block_all_signals();
}

}  // namespace

Result<std::unique_ptr<Shadow>> Shadow::become_shadow(EventLoop& loop, SyscallBroker::Call exec,
                                                      int program, Events events) {
  const pid_t pid = exec.tid();
  const RemoteAddr path_at = arguments_of(exec).path;
  auto path = exec.read_string(path_at, kMaxPathBytes);
  if (!path) return path.error();
  auto pair = seqpacket_pair();
  if (!pair) return pair.error();
  auto created = create(loop, pid, std::move(pair->first), std::move(events));
  if (!created) return created.error();

  auto tracee = PtraceStop::seize(pid);
  if (!tracee) return tracee.error();
  auto redirected =
      redirect(std::move(exec), *tracee, path_at + path->size(), pair->second.get(), program);
  if (!redirected) {
    kill(pid, SIGKILL);  // neither what it was nor a shadow
    return redirected.error();
  }
  return created;
}

Result<std::unique_ptr<Shadow>> Shadow::create(EventLoop& loop, pid_t pid, UniqueFd control,
                                               Events events) {
  fcntl(control.get(), F_SETFL, O_NONBLOCK);
  std::unique_ptr<Shadow> shadow(new Shadow(pid, std::move(control), std::move(events)));
  auto watch = loop.watch(shadow->control_.get(), EPOLLIN,
                          [s = shadow.get()](uint32_t) { s->on_readable(); });
  if (!watch) return watch.error();
  shadow->watch_ = std::move(*watch);
  return shadow;
}

Status Shadow::command(const ShadowCommand& command, int file) {
  const std::span<const int> files(&file, file >= 0 ? 1 : 0);
  Status sent =
      send_packet(control_.get(), {reinterpret_cast<const char*>(&command), sizeof command}, files);
  if (sent && command.verb == ShadowVerb::kStop) ++stops_ordered_;
  return sent;
}

void resume_shadow(pid_t pid) {
  siginfo_t info{};
  info.si_signo = SIGCONT;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_value.sival_ptr = reinterpret_cast<void*>(kResumeOnly);
  syscall(SYS_rt_sigqueueinfo, pid, SIGCONT, &info);
}

void Shadow::on_readable() {
  ShadowReport report;
  ssize_t got = recv(control_.get(), &report, sizeof report, 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (got == sizeof report) {
    if (report.kind == ShadowReport::kSignal && report.value == kResumeOnly) return;
    if (report.kind == ShadowReport::kContinued) {
      --stops_ordered_;
      return;
    }
    return events_.on_report(report);
  }
  watch_.reset();
  auto on_end = std::move(events_.on_end);
  if (on_end) on_end();
}

}  // namespace krg
