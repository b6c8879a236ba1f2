// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/exec_hold.h"

#include <sys/ptrace.h>

#include <csignal>
#include <memory>
#include <utility>

#include "image/frozen_process.h"

namespace krg {
namespace {

// From the stop at its exec, which is inside the call, to one at its first instruction.
Result<FrozenThread> at_first_instruction(pid_t child) {
  TraceStop stop;
  if (ptrace(PTRACE_SETOPTIONS, child, nullptr, FrozenThread::kOptions) == 0 &&
      ptrace(PTRACE_INTERRUPT, child, nullptr, nullptr) == 0) {
    do {
      const int signal = stop.kind == TraceStop::Kind::kSignal ? stop.signal : 0;
      if (ptrace(PTRACE_CONT, child, nullptr, signal) != 0) break;
      stop = TraceStop::wait(child);
    } while (stop.kind == TraceStop::Kind::kSignal);
  }
  if (stop.kind != TraceStop::Kind::kTrap) return errno_error("the process died", ESRCH);
  return FrozenThread::stopped(child, stop.signal);
}

// Of one that has been told to exec: what its stops on the way there mean.
class WayToExec {
 public:
  enum class At { kUnderWay, kExeced, kFailed };
  At after(const TraceStop& stop) {
    if (stop.kind == TraceStop::Kind::kEvent && stop.event == PTRACE_EVENT_EXEC) return At::kExeced;
    const bool is_behind_call =
        stop.kind == TraceStop::Kind::kSystemCall && std::exchange(has_entered_, true);
    return is_behind_call ? At::kFailed : At::kUnderWay;
  }

 private:
  bool has_entered_ = false;
};

}  // namespace

// FrozenProcess::exec(), until its end.
class HeldExec : public std::enable_shared_from_this<HeldExec> {
 public:
  HeldExec(std::shared_ptr<FrozenProcess> process, FrozenProcess::Frozen done)
      : process_(std::move(process)), reaper_(process_->reaper_), done_(std::move(done)) {}

  void begin(long number, FrozenThread::Arguments arguments) {
    auto at = process_->instruction();
    if (!at) return done_(at.error());
    process_->unwatch();
    reaper_.watch_tracee(process_->pid(),
                         [self = shared_from_this()](const ChildEvent& event) { self->on(event); });
    // One that has died tells its end.
    static_cast<void>(process_->main().begin_exec(*at, number, arguments));
  }

 private:
  void on(const ChildEvent& event) {
    const auto self = shared_from_this();
    const pid_t pid = process_->pid();
    if (event.is_end()) {
      process_->main().forget();
      return done_(errno_error("the process died", ESRCH));
    }
    switch (way_.after(TraceStop::from(event.status))) {
      case WayToExec::At::kExeced:
        return on_exec();
      case WayToExec::At::kFailed:
        return on_failure();
      case WayToExec::At::kUnderWay:  // signals can wait: it is to become another
        ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr);
    }
  }

  void on_exec() {
    const pid_t pid = process_->pid();
    reaper_.unwatch_tracee(pid);
    process_->main().forget();
    auto held = at_first_instruction(pid);
    if (!held) return done_(held.error());
    done_(FrozenProcess::adopt(reaper_, std::move(*held)));
  }

  void on_failure() {
    reaper_.unwatch_tracee(process_->pid());
    process_->watch(process_->pid());
    done_(errno_error("exec", static_cast<int>(-process_->main().end_exec())));
  }

  std::shared_ptr<FrozenProcess> process_;
  ChildReaper& reaper_;
  FrozenProcess::Frozen done_;
  WayToExec way_;
};

void FrozenProcess::exec(std::shared_ptr<FrozenProcess> process, long number,
                         FrozenThread::Arguments arguments, Frozen done) {
  std::make_shared<HeldExec>(std::move(process), std::move(done))->begin(number, arguments);
}

Status let_go_at_exec(ChildReaper& reaper, FrozenThread& thread, RemoteAddr instruction,
                      long number, FrozenThread::Arguments arguments) {
  const pid_t pid = thread.tid();
  const bool begun = thread.begin_exec(instruction, number, arguments);
  thread.forget();
  if (!begun) return errno_error("the process died", ESRCH);
  reaper.watch_tracee(pid, [&reaper, pid, way = WayToExec()](const ChildEvent& event) mutable {
    if (event.is_end()) return;
    const auto at = way.after(TraceStop::from(event.status));
    if (at == WayToExec::At::kUnderWay) {
      ptrace(PTRACE_SYSCALL, pid, nullptr, nullptr);
      return;
    }
    reaper.unwatch_tracee(pid);
    if (at == WayToExec::At::kFailed) kill(pid, SIGKILL);
    ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
  });
  return {};
}

Status hold_at_exec(ChildReaper& reaper, pid_t child,
                    std::function<void(Result<FrozenThread>)> held) {
  if (ptrace(PTRACE_SEIZE, child, nullptr, FrozenThread::kOptions | PTRACE_O_TRACEEXEC) != 0)
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
