// FrozenProcess::freeze(): every thread is seized and asked to stop; when all that are known have
// stopped, those that came meanwhile are looked for, until there are none.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/ptrace.h>

#include <csignal>
#include <map>
#include <optional>

#include "image/frozen_process.h"
#include "process_status.h"
#include "process_threads.h"

namespace krg {
namespace {

// How long it is waited for this krgd itself, which runs system calls in a thread (RemoteSyscalls).
constexpr std::chrono::milliseconds kHelpedTick{2};
constexpr int kHelpedTries = 500;

// It is on its way out: PTRACE_SEIZE fails with EPERM.
bool has_ended(pid_t tid) {
  auto status = read_process_status(tid);
  return !status || status->is_zombie();
}

Error why_not_seized(pid_t tid, const Error& error) {
  auto tracer = read_tracer(tid);
  if (!tracer || *tracer == 0) return error;
  if (!is_own_thread(*tracer))
    return errno_error(fmt::format("thread {} is traced by process {}", tid, *tracer), EPERM);
  return errno_error(fmt::format("thread {} has still not stopped since it was last asked to", tid),
                     EBUSY);
}

bool is_helped_by_us(pid_t tid) {
  auto tracer = read_tracer(tid);
  return tracer && *tracer != 0 && is_own_thread(*tracer);
}

// A thread that is traced but has not stopped cannot be let go: it is when it does stop.
void let_go_when_it_stops(ChildReaper& reaper, pid_t tid) {
  reaper.watch_tracee(tid, [&reaper, tid](const ChildEvent& event) {
    if (event.is_end()) return;
    reaper.unwatch_tracee(tid);
    const TraceStop stop = TraceStop::from(event.status);
    const bool has_signal = stop.kind == TraceStop::Kind::kSignal;
    ptrace(PTRACE_DETACH, tid, nullptr, has_signal ? stop.signal : 0);
  });
}

}  // namespace

class Freezing : public std::enable_shared_from_this<Freezing> {
 public:
  Freezing(EventLoop& loop, ChildReaper& reaper, pid_t pid, FrozenProcess::Frozen done)
      : loop_(loop), reaper_(reaper), pid_(pid), done_(std::move(done)) {}

  void begin(std::chrono::milliseconds patience) {
    patience_ = loop_.after(patience, [self = shared_from_this()] {
      self->give_up(self->is_helped_.value_or(
          errno_error(fmt::format("pid {} does not stop", self->pid_), ETIMEDOUT)));
    });
    look_for_threads();
  }

 private:
  struct Thread {
    bool has_stopped = false;
    int stop_signal = 0;
  };

  // One whose main thread has ended may be ending as a whole: its other threads do not stop then,
  // they end.
  void look_for_threads() {
    bool found = false;
    for (pid_t tid : threads_of(pid_)) {
      if (threads_.contains(tid)) continue;
      if (ptrace(PTRACE_SEIZE, tid, nullptr, FrozenThread::kOptions) != 0) {
        const Error error = errno_error("PTRACE_SEIZE");
        if (error.errno_or(0) == ESRCH || has_ended(tid)) continue;
        if (helped_tries_ == 0 || !is_helped_by_us(tid))
          return give_up_later(why_not_seized(tid, error));
        return look_again(why_not_seized(tid, error));
      }
      found = true;
      threads_[tid] = {};
      reaper_.watch_tracee(tid, [self = shared_from_this(), tid](const ChildEvent& event) {
        self->on_event(tid, event);
      });
      ptrace(PTRACE_INTERRUPT, tid, nullptr, nullptr);
    }
    if (threads_.empty()) return give_up_later(errno_error("no such process", ESRCH));
    if (found) return;
    threads_.contains(pid_) ? finish()
                            : give_up_later(errno_error("its main thread has ended", ENOTSUP));
  }

  void on_event(pid_t tid, const ChildEvent& event) {
    if (event.is_end()) {
      threads_.erase(tid);
      if (tid == pid_) return give_up(errno_error("the process died", ESRCH));
      return look_when_all_have_stopped();
    }
    const TraceStop stop = TraceStop::from(event.status);
    if (stop.kind != TraceStop::Kind::kTrap) {
      // A signal that came before: its handler, if any, is what the thread then stands at.
      const bool has_signal = stop.kind == TraceStop::Kind::kSignal;
      ptrace(PTRACE_CONT, tid, nullptr, has_signal ? stop.signal : 0);
      return;
    }
    threads_[tid] = {true, stop.signal};
    look_when_all_have_stopped();
  }

  void look_when_all_have_stopped() {
    for (const auto& [tid, thread] : threads_)
      if (!thread.has_stopped || tick_) return;
    look_for_threads();
  }

  void finish() {
    const auto self = shared_from_this();
    patience_.reset();
    std::shared_ptr<FrozenProcess> process(new FrozenProcess(reaper_, pid_));
    for (const auto& [tid, thread] : threads_) reaper_.unwatch_tracee(tid);
    auto stopped = std::exchange(threads_, {});
    // The main thread first.
    if (auto error = add(*process, pid_, stopped.at(pid_))) {
      stopped.erase(pid_);
      for (const auto& [tid, thread] : stopped) ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
      return done_(std::move(*error));
    }
    stopped.erase(pid_);
    std::optional<Error> failure;
    for (const auto& [tid, thread] : stopped)
      if (auto error = add(*process, tid, thread)) failure = std::move(error);
    if (failure) return done_(std::move(*failure));
    done_(std::move(process));
  }

  std::optional<Error> add(FrozenProcess& process, pid_t tid, const Thread& how) {
    auto thread = FrozenThread::stopped(tid, how.stop_signal);
    if (!thread) return thread.error();
    process.add(std::move(*thread));
    return std::nullopt;
  }

  // Those that have stopped meanwhile stay so.
  void look_again(Error why) {
    --helped_tries_;
    is_helped_ = std::move(why);
    tick_ = loop_.after(kHelpedTick, [self = shared_from_this()] {
      self->tick_.reset();
      self->is_helped_.reset();
      self->look_when_all_have_stopped();
    });
  }

  void give_up_later(Error why) {
    patience_ = loop_.after(std::chrono::milliseconds(0),
                            [self = shared_from_this(), why] { self->give_up(why); });
  }

  void give_up(Error why) {
    const auto self = shared_from_this();
    patience_.reset();
    tick_.reset();
    for (const auto& [tid, thread] : std::exchange(threads_, {})) {
      reaper_.unwatch_tracee(tid);
      if (thread.has_stopped)
        ptrace(PTRACE_DETACH, tid, nullptr, nullptr);
      else
        let_go_when_it_stops(reaper_, tid);
    }
    done_(std::move(why));
  }

  EventLoop& loop_;
  ChildReaper& reaper_;
  const pid_t pid_;
  FrozenProcess::Frozen done_;
  EventLoop::Timer patience_, tick_;
  int helped_tries_ = kHelpedTries;
  std::optional<Error> is_helped_;  // while it is waited for who helps
  std::map<pid_t, Thread> threads_;
};

void FrozenProcess::freeze(EventLoop& loop, ChildReaper& reaper, pid_t pid, Frozen done,
                           std::chrono::milliseconds patience) {
  std::make_shared<Freezing>(loop, reaper, pid, std::move(done))->begin(patience);
}

}  // namespace krg
