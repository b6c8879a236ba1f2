// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/event_loop.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cycle_counter.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

// So long descriptors and timers may wait for a hook that finds work whenever it looks: 5 to 20 µs,
// by how fast the processor counts.
constexpr uint64_t kUnservedCycles = 20'000;

struct EventLoop::Impl {
  struct Watched {
    int fd;
    std::function<void(uint32_t)> on_events;
  };
  struct Armed {
    std::multimap<Clock::time_point, uint64_t>::iterator due;
    microseconds period;  // 0: once
    std::function<void()> fire;
  };

  UniqueFd epoll;
  UniqueFd wakeup;
  uint64_t next_id = 1;  // 0 is the wake-up descriptor
  std::unordered_map<uint64_t, std::shared_ptr<Watched>> watches;
  std::multimap<Clock::time_point, uint64_t> due;
  std::unordered_map<uint64_t, std::shared_ptr<Armed>> timers;
  std::map<uint64_t, std::function<microseconds()>> idle_hooks;
  std::atomic<bool> stopping = false;
  std::mutex posted_mutex;  // guards posted, the only state that other threads touch
  std::vector<std::function<void()>> posted;
  std::atomic<bool> any_posted = false;  // true while posted is not empty
  uint64_t served_at = 0;                // in cycles: when descriptors were last asked for
  std::atomic<std::thread::id> runner;   // the thread that last ran it
  bool serves_first = false;
  bool hooks_waited = false;     // the last round has not run them: this one does
  unsigned running = 0;          // calls of run_once() that have not returned
  std::shared_ptr<Impl> orphan;  // itself, while it runs and its owner has gone

  uint64_t arm(microseconds delay, microseconds period, std::function<void()> fire) {
    uint64_t id = next_id++;
    auto armed = std::make_shared<Armed>();
    armed->due = due.emplace(Clock::now() + delay, id);
    armed->period = period;
    armed->fire = std::move(fire);
    timers.emplace(id, std::move(armed));
    return id;
  }
  void disarm(uint64_t id) {
    auto found = timers.find(id);
    if (found == timers.end()) return;
    due.erase(found->second->due);
    timers.erase(found);
  }
  void unwatch(uint64_t id) {
    auto found = watches.find(id);
    if (found == watches.end()) return;
    epoll_ctl(epoll.get(), EPOLL_CTL_DEL, found->second->fd, nullptr);
    watches.erase(found);
  }

  int round(microseconds wait);
  int serve(microseconds wait) {
    epoll_event ready[64];
    timespec timeout{wait.count() / 1'000'000, (wait.count() % 1'000'000) * 1000};
    int count = epoll_pwait2(epoll.get(), ready, 64, &timeout, nullptr);
    served_at = cycle_counter();
    int handled = 0;
    for (int i = 0; i < count; ++i) {
      if (ready[i].data.u64 == 0) {
        uint64_t drained;
        [[maybe_unused]] ssize_t got = ::read(wakeup.get(), &drained, sizeof drained);
        continue;
      }
      auto found = watches.find(ready[i].data.u64);
      if (found == watches.end()) continue;  // ended by an earlier callback of this round
      auto watched = found->second;
      watched->on_events(ready[i].events);
      ++handled;
    }
    return handled;
  }
  int fire_timers() {
    int fired = 0;
    const auto now = Clock::now();
    while (!due.empty() && due.begin()->first <= now) {
      uint64_t id = due.begin()->second;
      auto armed = timers.at(id);  // kept alive while it runs: it may disarm itself
      due.erase(due.begin());
      if (armed->period.count() > 0) {
        armed->due = due.emplace(std::max(now, Clock::now()) + armed->period, id);
      } else {
        timers.erase(id);
      }
      armed->fire();
      ++fired;
    }
    return fired;
  }
  int run_posted() { return any_posted ? run_all_posted() : 0; }
  int run_all_posted() {
    std::vector<std::function<void()>> batch;
    {
      std::lock_guard lock(posted_mutex);
      batch.swap(posted);
      any_posted = false;
    }
    for (auto& work : batch) work();
    return static_cast<int>(batch.size());
  }
  void wake() {
    uint64_t one = 1;
    [[maybe_unused]] ssize_t written = ::write(wakeup.get(), &one, sizeof one);
  }
};

Result<EventLoop> EventLoop::create() {
  auto impl = std::make_shared<Impl>();
  impl->epoll = UniqueFd(epoll_create1(EPOLL_CLOEXEC));
  if (!impl->epoll) return errno_error("epoll_create1");
  impl->wakeup = UniqueFd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl->wakeup) return errno_error("eventfd");
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = 0;
  if (epoll_ctl(impl->epoll.get(), EPOLL_CTL_ADD, impl->wakeup.get(), &event) != 0)
    return errno_error("epoll_ctl");
  return EventLoop(std::move(impl));
}

EventLoop::EventLoop(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
EventLoop::EventLoop(EventLoop&&) noexcept = default;
EventLoop& EventLoop::operator=(EventLoop&& other) noexcept {
  EventLoop gone(std::move(*this));
  impl_ = std::move(other.impl_);
  return *this;
}
EventLoop::~EventLoop() {
  if (impl_ && impl_->running > 0) impl_->orphan = std::move(impl_);
}

Result<EventLoop::Watch> EventLoop::watch(int fd, uint32_t events,
                                          std::function<void(uint32_t)> on_events) {
  Watch watch;
  watch.id_ = impl_->next_id++;
  epoll_event event{};
  event.events = events;
  event.data.u64 = watch.id_;
  if (epoll_ctl(impl_->epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
    return errno_error("epoll_ctl");
  impl_->watches.emplace(watch.id_,
                         std::make_shared<Impl::Watched>(Impl::Watched{fd, std::move(on_events)}));
  watch.loop_ = impl_;
  return watch;
}

EventLoop::Timer EventLoop::after(microseconds delay, std::function<void()> fire) {
  Timer timer;
  timer.id_ = impl_->arm(delay, microseconds(0), std::move(fire));
  timer.loop_ = impl_;
  return timer;
}

EventLoop::Timer EventLoop::every(microseconds period, std::function<void()> fire) {
  check(period.count() > 0, "a periodic timer has a period");
  Timer timer;
  timer.id_ = impl_->arm(period, period, std::move(fire));
  timer.loop_ = impl_;
  return timer;
}

void EventLoop::post(std::function<void()> work) {
  {
    std::lock_guard lock(impl_->posted_mutex);
    impl_->posted.push_back(std::move(work));
    impl_->any_posted = true;
  }
  // The loop's own thread looks for posted work before it waits.
  if (impl_->runner.load() != std::this_thread::get_id()) impl_->wake();
}

EventLoop::IdleHook EventLoop::add_idle_hook(std::function<microseconds()> hook) {
  IdleHook token;
  token.id_ = impl_->next_id++;
  impl_->idle_hooks.emplace(token.id_, std::move(hook));
  token.loop_ = impl_;
  return token;
}

void EventLoop::serve_first() {
  impl_->serves_first = true;
}

void EventLoop::run() {
  while (!impl_->stopping) run_once(std::chrono::hours(1));
  impl_->stopping = false;
}

int EventLoop::run_once(microseconds wait) {
  Impl* impl = impl_.get();  // a callback may destroy this loop's owner
  ++impl->running;
  const int handled = impl->round(wait);
  if (--impl->running == 0 && impl->orphan) auto last = std::move(impl->orphan);
  return handled;
}

int EventLoop::Impl::round(microseconds wait) {
  if (runner != std::this_thread::get_id()) runner = std::this_thread::get_id();
  if (std::exchange(serves_first, false) && !std::exchange(hooks_waited, false)) {
    sched_yield();
    if (const int handled = serve(microseconds(0)); handled > 0) {
      hooks_waited = true;
      return handled + run_posted();
    }
  }
  hooks_waited = false;
  for (auto& [id, hook] : idle_hooks) wait = std::min(wait, hook());
  const bool hook_worked = wait == kHandled;
  const int followed = hook_worked ? 1 + run_posted() : 0;  // what it brought is answered first
  if (hook_worked && cycle_counter() - served_at < kUnservedCycles) return followed;
  if (hook_worked || any_posted) wait = microseconds(0);
  if (!due.empty()) {
    auto until = std::chrono::ceil<microseconds>(due.begin()->first - Clock::now());
    wait = std::clamp(until, microseconds(0), wait);
  }
  const bool owes_service = std::exchange(serves_first, false);
  const int served = serve(wait);
  if (owes_service && served == 0) serves_first = true;
  int handled = followed + served + run_posted();
  if (!due.empty()) handled += fire_timers();
  return handled;
}

void EventLoop::stop() {
  impl_->stopping = true;
  impl_->wake();
}

EventLoop::Watch& EventLoop::Watch::operator=(Watch&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::move(other.loop_);
    id_ = other.id_;
  }
  return *this;
}
EventLoop::Watch::~Watch() {
  reset();
}
void EventLoop::Watch::reset() {
  if (auto loop = std::exchange(loop_, nullptr)) loop->unwatch(id_);
}
void EventLoop::Watch::set_events(uint32_t events) {
  check(loop_ != nullptr, "set_events() of an ended watch");
  auto found = loop_->watches.find(id_);
  check(found != loop_->watches.end(), "a live watch is registered");
  epoll_event event{};
  event.events = events;
  event.data.u64 = id_;
  check(epoll_ctl(loop_->epoll.get(), EPOLL_CTL_MOD, found->second->fd, &event) == 0,
        "a watched descriptor is open");
}

EventLoop::Timer& EventLoop::Timer::operator=(Timer&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::move(other.loop_);
    id_ = other.id_;
  }
  return *this;
}
EventLoop::Timer::~Timer() {
  reset();
}
void EventLoop::Timer::reset() {
  if (auto loop = std::exchange(loop_, nullptr)) loop->disarm(id_);
}

EventLoop::IdleHook& EventLoop::IdleHook::operator=(IdleHook&& other) noexcept {
  if (this != &other) {
    reset();
    loop_ = std::move(other.loop_);
    id_ = other.id_;
  }
  return *this;
}
EventLoop::IdleHook::~IdleHook() {
  reset();
}
void EventLoop::IdleHook::reset() {
  if (auto loop = std::exchange(loop_, nullptr)) loop->idle_hooks.erase(id_);
}

}  // namespace krg
