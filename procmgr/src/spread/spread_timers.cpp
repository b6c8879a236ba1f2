// SpreadProcess: timers that count its processor time (CpuTimers). Each look at them asks all nodes
// what was used there, so it is made when they may have expired, and not more often than the kernel
// makes its own.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/syscall.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <ctime>

#include "kernel_values.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::nanoseconds kLeastPause = 4ms;   // the kernel's ticks have that length
constexpr std::chrono::nanoseconds kMostPause = 100ms;  // so old may be what a capture knows

// As clock_getcpuclockid(3) has them.
enum class ProcessClock { kUser = 1, kRun = 2 };
int64_t read_clock(pid_t pid, ProcessClock which) {
  const unsigned clock = (~static_cast<unsigned>(pid) << 3) | static_cast<unsigned>(which);
  timespec now{};
  clock_gettime(static_cast<clockid_t>(clock), &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

}  // namespace

CpuTime SpreadProcess::used_here() const {
  const int64_t all = read_clock(parts_.pid, ProcessClock::kRun);
  const int64_t user = std::min(read_clock(parts_.pid, ProcessClock::kUser), all);
  return {user, all - user};
}

// setitimer(2), getitimer(2).
void SpreadProcess::begin_timer_call(const ThreadPtr& thread) {
  if (!CpuTimers::is_one(static_cast<int>(thread->entry.rdi))) return resume(thread);
  const auto answer = [this, thread](std::optional<itimerval> timer) {
    usage([this, thread, timer, alive = std::weak_ptr(alive_)](const Usage& elsewhere) {
      if (alive.expired() || thread->is_gone) return;
      CpuTime used = used_here();
      used += elsewhere.process;
      answer_timer_call(thread, used, timer ? &*timer : nullptr);
    });
  };
  if (thread->number == SYS_getitimer) return answer({});
  if (thread->entry.rsi == 0) return answer(itimerval{});
  read_memory(
      RemoteAddr{thread->entry.rsi}, sizeof(itimerval),
      [this, thread, answer, alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
        if (alive.expired() || thread->is_gone) return;
        itimerval timer{};
        if (!read || read->size() != sizeof timer) return skip(thread, -EFAULT);
        std::memcpy(&timer, read->data(), sizeof timer);
        CpuTimers::is_valid(timer) ? answer(timer) : skip(thread, -EINVAL);
      });
}

// `timer`: it is set; null: it is asked for.
void SpreadProcess::answer_timer_call(const ThreadPtr& thread, const CpuTime& used,
                                      const itimerval* timer) {
  const auto which = static_cast<int>(thread->entry.rdi);
  const itimerval before =
      timer ? cpu_timers_.set(which, *timer, used) : cpu_timers_.get(which, used);
  if (timer) {
    used_ = used;
    await_timers();
  }
  const RemoteAddr to{timer ? thread->entry.rdx : thread->entry.rsi};
  if (to.value == 0) return skip(thread, timer ? 0 : -EFAULT);
  write_memory(to, {reinterpret_cast<const char*>(&before), sizeof before},
               [this, thread, alive = std::weak_ptr(alive_)] {
                 if (!alive.expired() && !thread->is_gone) skip(thread, 0);
               });
}

// None expires before all threads together have used what is left of it.
void SpreadProcess::await_timers() {
  cpu_timers_look_.reset();
  const auto left = cpu_timers_.next(used_);
  if (!left) return;
  const auto threads = static_cast<int64_t>(std::max<size_t>(threads_.size(), 1));
  const auto pause = std::clamp(std::chrono::nanoseconds(*left / threads), kLeastPause, kMostPause);
  cpu_timers_look_ = parts_.node.loop.after(
      std::chrono::duration_cast<std::chrono::milliseconds>(pause), [this] { look_at_timers(); });
}

void SpreadProcess::look_at_timers() {
  if (is_standing() || fork_ || inspection_ || is_stopped_) return await_timers();
  usage([this, alive = std::weak_ptr(alive_)](const Usage& elsewhere) {
    if (alive.expired() || has_ended_) return;
    used_ = used_here();
    used_ += elsewhere.process;
    for (int signal : cpu_timers_.take_expired(used_)) kill(parts_.pid, signal);
    await_timers();
  });
}

}  // namespace krg
