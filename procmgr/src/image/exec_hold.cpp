// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/exec_hold.h"

#include <sys/ptrace.h>

namespace krg {
namespace {

constexpr long kOptions = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;

// From the stop at its exec, which is inside the call, to one at its first instruction.
Result<FrozenThread> at_first_instruction(pid_t child) {
  TraceStop stop;
  if (ptrace(PTRACE_SETOPTIONS, child, nullptr, kOptions) == 0 &&
      ptrace(PTRACE_INTERRUPT, child, nullptr, nullptr) == 0) {
    do {
      const int signal = stop.kind == TraceStop::Kind::kSignal ? stop.signal : 0;
      if (ptrace(PTRACE_CONT, child, nullptr, signal) != 0) break;
      stop = TraceStop::wait(child);
    } while (stop.kind == TraceStop::Kind::kSignal);
  }
  if (stop.kind != TraceStop::Kind::kTrap) return errno_error("the process died", ESRCH);
  return FrozenThread::stopped(child, stop.signal, true);
}

}  // namespace

Status hold_at_exec(ChildReaper& reaper, pid_t child,
                    std::function<void(Result<FrozenThread>)> held) {
  if (ptrace(PTRACE_SEIZE, child, nullptr, kOptions | PTRACE_O_TRACEEXEC) != 0)
    return errno_error("PTRACE_SEIZE");
  reaper.watch_tracee(child, [&reaper, child, held = std::move(held)](const ChildEvent& event) {
    if (event.is_end()) return held(errno_error("the process died", ESRCH));
    const TraceStop stop = TraceStop::from(event.status);
    if (stop.kind == TraceStop::Kind::kEvent && stop.event == PTRACE_EVENT_EXEC) {
      reaper.unwatch_tracee(child);
      return held(at_first_instruction(child));
    }
    const bool has_signal = stop.kind == TraceStop::Kind::kSignal;
    ptrace(PTRACE_CONT, child, nullptr, has_signal ? stop.signal : 0);
  });
  return {};
}

}  // namespace krg
