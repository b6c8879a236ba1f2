// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/traced_tasks.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <csignal>
#include <utility>

#include "call_registers.h"
#include "image/frozen_thread.h"

namespace krg {

bool has_first_stop(pid_t task) {
  user_regs_struct registers;
  if (ptrace(PTRACE_GETREGS, task, nullptr, &registers) != 0)
    return TraceStop::wait(task).kind == TraceStop::Kind::kTrap;
  siginfo_t info;
  waitid(P_PID, static_cast<id_t>(task), &info, WSTOPPED | WNOHANG | __WALL);
  return true;
}

bool becomes_page_source(pid_t task, RemoteAddr instruction) {
  auto thread = FrozenThread::stopped(task);
  if (!thread) return false;
  const bool closed = thread->call(instruction, SYS_close_range, {0, ~0U, 0}) == 0;
  thread->set_registers(call_registers(thread->registers(), instruction.value, SYS_exit_group, {}));
  static_cast<void>(thread->settle());
  thread->forget();  // and stays stopped
  return closed;
}

Status stop_caller(ChildReaper& reaper, SyscallBroker::Call& call,
                   std::function<void(const ChildEvent&)> on_event) {
  const pid_t caller = call.tid();
  if (ptrace(PTRACE_SEIZE, caller, nullptr, FrozenThread::kOptions) != 0)
    return errno_error("PTRACE_SEIZE");
  reaper.watch_tracee(caller, std::move(on_event));
  ptrace(PTRACE_INTERRUPT, caller, nullptr, nullptr);
  SyscallBroker::Call(std::move(call)).fail(EINTR);
  return {};
}

void end_task(pid_t tid) {
  kill(tid, SIGKILL);
  waitid(P_PID, static_cast<id_t>(tid), nullptr, WEXITED | __WALL);
}

}  // namespace krg
