// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/child_reaper.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <set>
#include <vector>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// A tracee that stops may be claimed by then: the fork that made it has yet to be told.
constexpr std::chrono::seconds kClaimPeriod{1};

// From so many tracees on that stand, and so many times as many as move, these alone are looked at;
// all of them after so long.
constexpr size_t kManyStand = 64, kManyMoreStand = 8;
constexpr std::chrono::milliseconds kLookAtAll{10};

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
  using Changed = std::function<void(const ChildEvent&)>;
  EventLoop& loop;
  UniqueFd signals;
  EventLoop::Watch watch;
  std::map<pid_t, Changed> watched, tracees;
  std::set<pid_t> moving;  // tracees that are not known to stand
  EventLoop::Timer look_at_all;
  struct Unclaimed {  // a tracee that has stopped
    ChildEvent event;
    EventLoop::Timer release;
  };
  std::map<pid_t, Unclaimed> unclaimed;

  explicit Impl(EventLoop& of) : loop(of) {}

  void take_signal() const;
  void reap();
  void reap_all();
  void reap_likely();
  bool many_stand() const;
  void forget_tracee(pid_t tid);
  // Reports what has come of `whom` (waitid(2)); false: nothing.
  bool take_one(idtype_t whom, pid_t pid, int what);
  void report(const ChildEvent& event);
  void report_tracee(const ChildEvent& event);
  static void report_to(std::map<pid_t, Changed>& watchers, const ChildEvent& event);
};

// SIGCHLD waits once at the most. One that comes behind this makes the descriptor readable again.
void ChildReaper::Impl::take_signal() const {
  signalfd_siginfo info;
  [[maybe_unused]] const ssize_t got = read(signals.get(), &info, sizeof info);
}

// That a child goes on is told once, and a tracer that asks takes it from the parent
// (kernel/exit.c, wait_task_continued): so only of children that are krgd's own.
void ChildReaper::Impl::reap() {
  many_stand() ? reap_likely() : reap_all();
  std::vector<pid_t> own;
  for (const auto& [pid, changed] : watched) own.push_back(pid);
  for (pid_t pid : own) take_one(P_PID, pid, WCONTINUED);
}

void ChildReaper::Impl::reap_all() {
  look_at_all.reset();
  while (take_one(P_ALL, 0, WEXITED | WSTOPPED)) {
  }
}

// Orphans, tracees that nobody has claimed yet and those that were killed while they stood can wait
// for a moment.
void ChildReaper::Impl::reap_likely() {
  if (!look_at_all) look_at_all = loop.after(kLookAtAll, [this] { reap_all(); });
  for (pid_t tid : std::vector(moving.begin(), moving.end()))
    take_one(P_PID, tid, WEXITED | WSTOPPED);
  std::vector<pid_t> own;
  for (const auto& [pid, changed] : watched) own.push_back(pid);
  for (pid_t pid : own) take_one(P_PID, pid, WEXITED | WSTOPPED);
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
bool ChildReaper::Impl::take_one(idtype_t whom, pid_t pid, int what) {
  siginfo_t info{};
  ChildEvent event;
  const long waited = syscall(SYS_waitid, whom, pid, &info, what | WNOHANG, &event.usage);
  if (waited != 0 || info.si_pid == 0) return false;
  event.pid = info.si_pid;
  event.code = info.si_code;
  event.status = info.si_status;
  event.uid = info.si_uid;
  report(event);
  return true;
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
    reaper->take_signal();
    reaper->reap();
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
    if (impl->tracees.contains(tid)) impl->take_one(P_PID, tid, WEXITED | WSTOPPED);
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
