// SPDX-License-Identifier: GPL-2.0-or-later
#include "syscall_receiver.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <csignal>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "krg/runtime/log.h"
#include "krg/runtime/short_slice.h"
#include "seccomp_abi.h"

namespace krg {
namespace {

constexpr std::chrono::microseconds kSlice{100};
constexpr uint64_t kStop = 0;  // the number of the descriptor that ends the thread

// Of all who wait for a descriptor so, the kernel wakes the one who came first among those that are
// in their epoll_wait(2) now (EPOLLEXCLUSIVE).
constexpr uint32_t kIfFirst = EPOLLIN | EPOLLEXCLUSIVE;

bool add_to(const UniqueFd& epoll, int fd, uint64_t number, uint32_t events) {
  epoll_event event{};
  event.events = events;
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
  using Listener = std::shared_ptr<const UniqueFd>;
  struct Taken {
    Listener listener;
    seccomp_notif call;
  };

  EventLoop& loop;
  Deliver deliver;                                         // empty when the receiver has gone
  std::unordered_map<uint64_t, EventLoop::Watch> watches;  // the loop's
  UniqueFd epoll{epoll_create1(EPOLL_CLOEXEC)};
  UniqueFd stop{eventfd(0, EFD_CLOEXEC)};
  mutable std::mutex mutex;  // guards what follows; calls are received while it is held
  std::unordered_map<uint64_t, Listener> listeners;
  std::vector<Taken> taken;  // still to be delivered, in their order
  uint64_t next_number = kStop + 1;
  std::thread thread;

  Impl(EventLoop& l, Deliver d) : loop(l), deliver(std::move(d)) {
    check(epoll && stop && add_to(epoll, stop.get(), kStop, EPOLLIN),
          "krgd has descriptors when it starts");
  }

  Status add(Listener listener) {
    std::lock_guard lock(mutex);
    const uint64_t number = next_number++;
    // The loop comes first.
    auto watch = loop.watch(listener->get(), kIfFirst,
                            [this, number](uint32_t events) { on_events(number, events); });
    if (!watch) return watch.error();
    if (!add_to(epoll, listener->get(), number, kIfFirst)) return errno_error("epoll_ctl");
    watches.emplace(number, std::move(*watch));
    listeners.emplace(number, std::move(listener));
    return {};
  }

  // The thread's part.
  void receive_all() {
    for (;;) {
      epoll_event ready[16];
      const int count = epoll_wait(epoll.get(), ready, std::size(ready), -1);
      for (int i = 0; i < count; ++i) {
        if (ready[i].data.u64 == kStop) return;
        take(ready[i].data.u64, ready[i].events);
      }
    }
  }
  void take(uint64_t number, uint32_t events) {
    {
      std::lock_guard lock(mutex);
      const auto found = listeners.find(number);
      if (found == listeners.end()) return;
      if (!(events & EPOLLIN)) {
        epoll_ctl(epoll.get(), EPOLL_CTL_DEL, found->second->get(), nullptr);
      } else if (auto call = receive(*found->second)) {
        taken.push_back({found->second, *call});
      } else {
        return;
      }
    }
    loop.post([self = shared_from_this(), number, gone = !(events & EPOLLIN)] {
      if (gone) self->drop(number);
      self->deliver_taken();
    });
  }

  // The loop's part.
  void on_events(uint64_t number, uint32_t events) {
    if (!(events & EPOLLIN)) return drop(number);
    {
      std::lock_guard lock(mutex);
      const auto found = listeners.find(number);
      if (found == listeners.end()) return;
      if (auto call = receive(*found->second)) taken.push_back({found->second, *call});
    }
    deliver_taken();
  }
  void deliver_taken() {
    std::vector<Taken> batch;
    {
      std::lock_guard lock(mutex);
      batch.swap(taken);
    }
    const auto self = shared_from_this();
    for (const Taken& one : batch)
      if (deliver) deliver(one.listener, one.call);
  }
  void drop(uint64_t number) {
    watches.erase(number);
    std::lock_guard lock(mutex);
    const auto found = listeners.find(number);
    if (found == listeners.end()) return;
    epoll_ctl(epoll.get(), EPOLL_CTL_DEL, found->second->get(), nullptr);
    listeners.erase(found);
  }

  // REQUIRES: the mutex. So it does not block: a call that waits is taken by nobody else, and when
  // its caller dies this is ENOENT.
  static std::optional<seccomp_notif> receive(const UniqueFd& listener) {
    pollfd waiting{listener.get(), POLLIN, 0};
    if (poll(&waiting, 1, 0) != 1 || !(waiting.revents & POLLIN)) return {};
    seccomp_notif call{};
    if (ioctl(listener.get(), SECCOMP_IOCTL_NOTIF_RECV, &call) == 0) return call;
    if (errno != ENOENT && errno != EINTR)
      log_error("syscalls", "{}", errno_error("SECCOMP_IOCTL_NOTIF_RECV").message());
    return {};
  }
};

SyscallReceiver::SyscallReceiver(EventLoop& loop, Deliver deliver, bool first)
    : impl_(std::make_shared<Impl>(loop, std::move(deliver))) {
  // Signals are for other threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  impl_->thread = std::thread([impl = impl_.get(), first] {
    if (first) take_precedence();
    impl->receive_all();
  });
  pthread_setname_np(impl_->thread.native_handle(), "krgd-calls");
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

SyscallReceiver::~SyscallReceiver() {
  impl_->deliver = nullptr;
  impl_->watches.clear();
  const uint64_t one = 1;
  check(::write(impl_->stop.get(), &one, sizeof one) == sizeof one, "an eventfd takes a number");
  impl_->thread.join();
}

Status SyscallReceiver::add(UniqueFd fd) {
  // An answered caller is woken on this CPU, without a wake-up across; so is the thread that takes
  // the call up. Older kernels do without.
  ioctl(fd.get(), kNotifSetFlags, kNotifSyncWakeUp);
  return impl_->add(std::make_shared<const UniqueFd>(std::move(fd)));
}

size_t SyscallReceiver::listener_count() const {
  std::lock_guard lock(impl_->mutex);
  return impl_->listeners.size();
}

}  // namespace krg
