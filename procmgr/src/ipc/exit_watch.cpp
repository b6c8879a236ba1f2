// SPDX-License-Identifier: GPL-2.0-or-later
#include "exit_watch.h"

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "krg/runtime/log.h"

namespace krg {
namespace {

constexpr int kEventsAtOnce = 16;

}  // namespace

ExitWatch::ExitWatch(EventLoop& loop, std::function<void(pid_t)> ended)
    : ended_(std::move(ended)), epoll_(epoll_create1(EPOLL_CLOEXEC)) {
  check(static_cast<bool>(epoll_), "an epoll descriptor can be made");
  auto watch = loop.watch(epoll_.get(), EPOLLIN, [this](uint32_t) { drain(); });
  check(watch.has_value(), "an epoll descriptor can be watched");
  watch_ = std::move(*watch);
}

void ExitWatch::add(pid_t process) {
  if (processes_.contains(process)) return;
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, process, 0)));
  if (!pidfd) {
    if (errno != ESRCH) log_warn("ipc", "pid {}: {}", process, errno_error("pidfd_open").message());
    return ended_(process);
  }
  epoll_event event{EPOLLIN, {.u64 = static_cast<uint64_t>(process)}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, pidfd.get(), &event) != 0) return ended_(process);
  processes_.emplace(process, std::move(pidfd));
}

void ExitWatch::drain() {
  if (processes_.empty()) return;
  epoll_event events[kEventsAtOnce];
  int count;
  while ((count = epoll_wait(epoll_.get(), events, kEventsAtOnce, 0)) > 0)
    for (int i = 0; i < count; ++i) report(static_cast<pid_t>(events[i].data.u64));
}

void ExitWatch::report(pid_t process) {
  auto found = processes_.extract(process);
  if (found.empty()) return;
  // Closing is not enough where a child of krgd still has a copy.
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found.mapped().get(), nullptr);
  ended_(process);
}

}  // namespace krg
