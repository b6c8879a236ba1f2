// SPDX-License-Identifier: GPL-2.0-or-later
#include "syscall_receiver.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <csignal>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "krg/runtime/log.h"
#include "krg/runtime/short_slice.h"
#include "seccomp_abi.h"

namespace krg {
namespace {

constexpr std::chrono::microseconds kSlice{100};
constexpr uint64_t kStop = 0;  // the number of the descriptor that ends the thread

bool add_to(const UniqueFd& epoll, int fd, uint64_t number) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = number;
  return epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

// A caller's signals race with this thread, which has next to nothing to do: it goes before all
// else where that is allowed (CAP_SYS_NICE, or a limit of real-time priorities).
void take_precedence() {
  sched_param least{};
  least.sched_priority = sched_get_priority_min(SCHED_FIFO);
  if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &least) == 0) return;
  if (auto taken = take_short_slices(kSlice); !taken)
    log_debug("syscalls", "calls are taken up in turn with others: {}", taken.error().message());
}

}  // namespace

struct SyscallReceiver::Impl : std::enable_shared_from_this<Impl> {
  EventLoop& loop;
  Deliver deliver;  // empty when the receiver has gone
  UniqueFd epoll{epoll_create1(EPOLL_CLOEXEC)};
  UniqueFd stop{eventfd(0, EFD_CLOEXEC)};
  mutable std::mutex mutex;  // guards the listeners
  std::unordered_map<uint64_t, std::shared_ptr<const UniqueFd>> listeners;
  uint64_t next_number = kStop + 1;
  std::thread thread;

  Impl(EventLoop& l, Deliver d) : loop(l), deliver(std::move(d)) {
    check(epoll && stop && add_to(epoll, stop.get(), kStop), "krgd has descriptors when it starts");
  }

  void receive_all() {
    for (;;) {
      epoll_event ready[16];
      const int count = epoll_wait(epoll.get(), ready, std::size(ready), -1);
      for (int i = 0; i < count; ++i) {
        if (ready[i].data.u64 == kStop) return;
        on_events(ready[i].data.u64, ready[i].events);
      }
    }
  }

  void on_events(uint64_t number, uint32_t events) {
    std::unique_lock lock(mutex);
    const auto found = listeners.find(number);
    check(found != listeners.end(), "only this thread drops listeners");
    // Without EPOLLIN it is EPOLLHUP: the filter's last process has gone.
    if (!(events & EPOLLIN)) {
      epoll_ctl(epoll.get(), EPOLL_CTL_DEL, found->second->get(), nullptr);
      listeners.erase(found);
      return;
    }
    auto listener = found->second;
    lock.unlock();
    receive(std::move(listener));
  }

  // Takes one call. It does not block: EPOLLIN says that one waits, and a caller that dies in
  // between makes this ENOENT.
  void receive(std::shared_ptr<const UniqueFd> listener) {
    seccomp_notif call{};
    if (ioctl(listener->get(), SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) {
      if (errno != ENOENT && errno != EINTR)
        log_error("syscalls", "{}", errno_error("SECCOMP_IOCTL_NOTIF_RECV").message());
      return;
    }
    loop.post([self = shared_from_this(), listener = std::move(listener), call] {
      if (self->deliver) self->deliver(listener, call);
    });
  }
};

SyscallReceiver::SyscallReceiver(EventLoop& loop, Deliver deliver, bool first)
    : impl_(std::make_shared<Impl>(loop, std::move(deliver))) {
  // Signals are for other threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get(), first] {
    pthread_setname_np(pthread_self(), "krgd-calls");
    if (first) take_precedence();
    impl->receive_all();
  });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

SyscallReceiver::~SyscallReceiver() {
  impl_->deliver = nullptr;
  const uint64_t one = 1;
  check(::write(impl_->stop.get(), &one, sizeof one) == sizeof one, "an eventfd takes a number");
  impl_->thread.join();
}

Status SyscallReceiver::add(UniqueFd fd) {
  // An answered caller is woken on this CPU, without a wake-up across; so is the thread that takes
  // the call up. Older kernels do without.
  ioctl(fd.get(), kNotifSetFlags, kNotifSyncWakeUp);
  auto listener = std::make_shared<const UniqueFd>(std::move(fd));
  std::lock_guard lock(impl_->mutex);
  const uint64_t number = impl_->next_number++;
  if (!add_to(impl_->epoll, listener->get(), number)) return errno_error("epoll_ctl");
  impl_->listeners.emplace(number, std::move(listener));
  return {};
}

size_t SyscallReceiver::listener_count() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->listeners.size();
}

}  // namespace krg
