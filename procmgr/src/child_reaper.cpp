// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/child_reaper.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <vector>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// A tracee that stops may be claimed by then: the fork that made it has yet to be told.
constexpr std::chrono::seconds kClaimPeriod{1};

// From so many tracees on that stand, and so many times as many as move, these alone are looked at;
// all of them after so long, or so many times as long as that takes.
constexpr size_t kManyStand = 64, kManyMoreStand = 8;
constexpr std::chrono::milliseconds kLookAtAll{10};
constexpr unsigned kRest = 30;

// Where so many tracees move among so many, looking at each for every one that stops takes too
// long.
constexpr size_t kCrowd = 512, kCrowdMoves = 64;

// Lets go on what nobody traces any more: it was forked by one that was killed meanwhile.
void let_go(pid_t tid, int status) {
  const bool is_signal = status >> 8 == 0 && status != (SIGTRAP | 0x80);
  ptrace(PTRACE_DETACH, tid, nullptr, is_signal ? status : 0);
}

}  // namespace

bool ChildEvent::is_end() const {
  return code == CLD_EXITED || code == CLD_KILLED || code == CLD_DUMPED;
}

struct ChildReaper::Impl {
  using Clock = std::chrono::steady_clock;
  using Changed = std::function<void(const ChildEvent&)>;
  EventLoop& loop;
  UniqueFd signals;
  EventLoop::Watch watch;
  std::map<pid_t, Changed> watched, tracees;
  std::set<pid_t> moving;  // tracees that are not known to stand
  EventLoop::Timer look_at_all, look_again;
  Clock::duration look_takes{};  // at all
  Clock::time_point next_look{};
  struct Unclaimed {  // a tracee that has stopped
    ChildEvent event;
    EventLoop::Timer release;
  };
  std::map<pid_t, Unclaimed> unclaimed;

  explicit Impl(EventLoop& of) : loop(of) {}

  pid_t take_signal() const;
  // `told`: whom the signal named, if it was read.
  void reap(pid_t told);
  void reap_all();
  void reap_own(int what);
  void reap_likely();
  void reap_crowd(pid_t told);
  bool many_stand() const;
  bool is_crowd() const;
  void forget_tracee(pid_t tid);
  // Reports what has come of `pid` (waitid(2)); false: nothing.
  bool take_one(pid_t pid, int what);
  // Whom the kernel has something to tell of; 0: nobody.
  static pid_t next_changed();
  void report(const ChildEvent& event);
  void report_tracee(const ChildEvent& event);
  static void report_to(std::map<pid_t, Changed>& watchers, const ChildEvent& event);
};

// SIGCHLD waits once at the most, and names the first of those that have changed. One that comes
// behind this makes the descriptor readable again.
pid_t ChildReaper::Impl::take_signal() const {
  signalfd_siginfo info;
  return read(signals.get(), &info, sizeof info) == sizeof info ? static_cast<pid_t>(info.ssi_pid)
                                                                : 0;
}

// That a child goes on is told once, and a tracer that asks takes it from the parent
// (kernel/exit.c, wait_task_continued): so only of children that are krgd's own.
void ChildReaper::Impl::reap(pid_t told) {
  if (is_crowd()) return reap_crowd(told);
  if (many_stand()) return reap_likely();
  reap_all();
  reap_own(WCONTINUED);
}

void ChildReaper::Impl::reap_own(int what) {
  std::vector<pid_t> own;
  for (const auto& [pid, changed] : watched) own.push_back(pid);
  for (pid_t pid : own)
    while (take_one(pid, what)) continue;
}

void ChildReaper::Impl::reap_all() {
  look_at_all.reset();
  for (;;) {
    const auto begin = Clock::now();
    const pid_t pid = next_changed();
    look_takes = Clock::now() - begin;
    if (pid == 0) return;
    take_one(pid, WEXITED | WSTOPPED);
  }
}

// Orphans, tracees that nobody has claimed yet and those that were killed while they stood can wait
// for a moment.
void ChildReaper::Impl::reap_likely() {
  if (!look_at_all)
    look_at_all = loop.after(
        std::max<std::chrono::microseconds>(
            kLookAtAll, std::chrono::ceil<std::chrono::microseconds>(kRest * look_takes)),
        [this] { reap_all(); });
  for (pid_t tid : std::vector(moving.begin(), moving.end())) take_one(tid, WEXITED | WSTOPPED);
  reap_own(WEXITED | WSTOPPED | WCONTINUED);
}

// Who is named at once; the others, whose signals were lost in its own, as often as leaves half of
// the time for what they stop for.
void ChildReaper::Impl::reap_crowd(pid_t told) {
  if (told != 0) take_one(told, WEXITED | WSTOPPED);
  if (look_again) return reap_own(WCONTINUED);
  const auto begin = Clock::now();
  if (begin < next_look) {
    reap_own(WCONTINUED);
    look_again =
        loop.after(std::chrono::ceil<std::chrono::microseconds>(next_look - begin), [this] {
          look_again.reset();
          reap(0);
        });
    return;
  }
  reap_likely();
  const auto end = Clock::now();
  next_look = end + (end - begin);
}

bool ChildReaper::Impl::is_crowd() const {
  return tracees.size() >= kCrowd && moving.size() >= kCrowdMoves;
}

bool ChildReaper::Impl::many_stand() const {
  const size_t stand = tracees.size() - moving.size();
  return stand >= kManyStand && stand >= kManyMoreStand * moving.size();
}

void ChildReaper::Impl::forget_tracee(pid_t tid) {
  tracees.erase(tid);
  moving.erase(tid);
}

// waitid(2) as the kernel has it: glibc's wrapper leaves out the fifth argument, the child's usage.
// For that the kernel adds up all threads of the process: only who is watched is asked for it.
bool ChildReaper::Impl::take_one(pid_t pid, int what) {
  siginfo_t info{};
  ChildEvent event;
  rusage* const usage = watched.contains(pid) ? &event.usage : nullptr;
  if (syscall(SYS_waitid, P_PID, pid, &info, what | WNOHANG, usage) != 0 || info.si_pid == 0)
    return false;
  event.pid = info.si_pid;
  event.code = info.si_code;
  event.status = info.si_status;
  event.uid = info.si_uid;
  report(event);
  return true;
}

pid_t ChildReaper::Impl::next_changed() {
  siginfo_t info{};
  const int what = WEXITED | WSTOPPED | WNOHANG | WNOWAIT;
  return waitid(P_ALL, 0, &info, what) == 0 ? info.si_pid : 0;
}

void ChildReaper::Impl::report(const ChildEvent& event) {
  if (event.code == CLD_TRAPPED || event.is_end()) report_tracee(event);
  if (event.code != CLD_TRAPPED) report_to(watched, event);
}

void ChildReaper::Impl::report_tracee(const ChildEvent& event) {
  const pid_t tid = event.pid;
  unclaimed.erase(tid);
  if (!event.is_end() && !tracees.contains(tid))
    unclaimed.emplace(tid,
                      Unclaimed{event, loop.after(kClaimPeriod, [this, tid, status = event.status] {
                                  let_go(tid, status);
                                  unclaimed.erase(tid);
                                })});
  if (event.is_end()) moving.erase(tid);
  report_to(tracees, event);
}

void ChildReaper::Impl::report_to(std::map<pid_t, Changed>& watchers, const ChildEvent& event) {
  auto found = watchers.find(event.pid);
  if (found == watchers.end()) return;
  Changed changed = found->second;  // a copy: the callback may end the watch
  if (event.is_end()) watchers.erase(found);
  changed(event);
}

ChildReaper::ChildReaper(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChildReaper::~ChildReaper() = default;

Result<std::unique_ptr<ChildReaper>> ChildReaper::create(EventLoop& loop) {
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  if (sigprocmask(SIG_BLOCK, &child, nullptr) != 0) return errno_error("sigprocmask");
  auto impl = std::make_unique<Impl>(loop);
  impl->signals = UniqueFd(signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!impl->signals) return errno_error("signalfd");
  auto watch = loop.watch(impl->signals.get(), EPOLLIN, [reaper = impl.get()](uint32_t) {
    const pid_t told = reaper->take_signal();
    reaper->reap(told);
  });
  if (!watch) return watch.error();
  impl->watch = std::move(*watch);
  return std::unique_ptr<ChildReaper>(new ChildReaper(std::move(impl)));
}

void ChildReaper::watch(pid_t pid, std::function<void(const ChildEvent&)> changed) {
  check(impl_->watched.emplace(pid, std::move(changed)).second, "a child has one watcher");
}

void ChildReaper::unwatch(pid_t pid) {
  impl_->watched.erase(pid);
}

void ChildReaper::watch_tracee(pid_t tid, std::function<void(const ChildEvent&)> changed) {
  impl_->unclaimed.erase(tid);
  check(impl_->tracees.emplace(tid, std::move(changed)).second, "a tracee has one watcher");
  impl_->moving.insert(tid);
}

void ChildReaper::watch_new_tracee(pid_t tid, std::function<void(const ChildEvent&)> changed) {
  auto stopped = impl_->unclaimed.extract(tid);
  watch_tracee(tid, std::move(changed));
  if (!stopped.empty())
    return impl_->loop.post([impl = impl_.get(), event = stopped.mapped().event] {
      impl->report_to(impl->tracees, event);
    });
  if (!impl_->many_stand()) return;
  impl_->loop.post([impl = impl_.get(), tid] {  // its stop may have been passed over
    if (impl->tracees.contains(tid)) impl->take_one(tid, WEXITED | WSTOPPED);
  });
}

void ChildReaper::tracee_goes_on(pid_t tid) {
  if (impl_->tracees.contains(tid)) impl_->moving.insert(tid);
  impl_->loop.serve_first();
}
void ChildReaper::tracee_stands(pid_t tid) {
  impl_->moving.erase(tid);
}
void ChildReaper::unwatch_tracee(pid_t tid) {
  impl_->forget_tracee(tid);
}

}  // namespace krg
