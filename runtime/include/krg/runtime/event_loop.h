// EventLoop: one epoll loop that owns a node's protocol state. Everything that krgd waits for is a
// descriptor watched here, a timer, or a function posted from another thread. Threads: all members
// belong to the thread that calls run(), except post() and stop(), which any thread may call.
// Callbacks must not block; what blocks goes to a WorkerPool.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>

#include "krg/runtime/result.h"

namespace krg {

class EventLoop {
  struct Impl;

 public:
  // Keeps a descriptor watched; destroying it ends the watch. It does not own the descriptor, which
  // must stay open while it is watched. May be destroyed inside its own callback.
  class Watch {
   public:
    Watch() = default;
    Watch(Watch&&) noexcept = default;
    Watch& operator=(Watch&&) noexcept;
    ~Watch();
    explicit operator bool() const noexcept { return loop_ != nullptr; }
    void reset();
    // Changes the awaited events (EPOLLIN, EPOLLOUT, ...; 0 leaves only EPOLLHUP and EPOLLERR).
    void set_events(uint32_t events);

   private:
    friend class EventLoop;
    std::shared_ptr<Impl> loop_;
    uint64_t id_ = 0;
  };

  // Keeps a timer armed; destroying it disarms it. May be destroyed inside its own callback.
  class Timer {
   public:
    Timer() = default;
    Timer(Timer&&) noexcept = default;
    Timer& operator=(Timer&&) noexcept;
    ~Timer();
    explicit operator bool() const noexcept { return loop_ != nullptr; }
    void reset();

   private:
    friend class EventLoop;
    std::shared_ptr<Impl> loop_;
    uint64_t id_ = 0;
  };

  // Keeps an idle hook installed; destroying it takes the hook out. Must not be destroyed inside
  // the hook itself.
  class IdleHook {
   public:
    IdleHook() = default;
    IdleHook(IdleHook&&) noexcept = default;
    IdleHook& operator=(IdleHook&&) noexcept;
    ~IdleHook();
    void reset();

   private:
    friend class EventLoop;
    std::shared_ptr<Impl> loop_;
    uint64_t id_ = 0;
  };

  static Result<EventLoop> create();
  EventLoop(EventLoop&&) noexcept;
  EventLoop& operator=(EventLoop&&) noexcept;
  ~EventLoop();

  // Calls `on_events(events)` whenever fd has one of `events` (level-triggered) or an error.
  // Errors: what epoll_ctl(2) refuses.
  [[nodiscard]] Result<Watch> watch(int fd, uint32_t events,
                                    std::function<void(uint32_t)> on_events);
  // Calls `fire` once, `delay` from now.
  [[nodiscard]] Timer after(std::chrono::microseconds delay, std::function<void()> fire);
  // Calls `fire` each `period` (the next call is armed after the previous one returned).
  [[nodiscard]] Timer every(std::chrono::microseconds period, std::function<void()> fire);
  // Runs `work` in the loop's thread, after what is already queued. Any thread.
  void post(std::function<void()> work);
  // Adds a hook that runs before each wait: a transport polls in it. It returns how long the loop
  // may sleep at the most before the hook wants to run again; kHandled when it has handled
  // something, since that may be what the caller of run_once() waits for: then descriptors are
  // asked for only where that has not been done for some microseconds. It may call into this loop.
  static constexpr std::chrono::microseconds kHandled{-1};
  [[nodiscard]] IdleHook add_idle_hook(std::function<std::chrono::microseconds()> hook);
  // Whoever waits for this core runs next, then descriptors are asked for, before hooks run again:
  // who was just answered may have gone on, and ask for more.
  void serve_first();

  // Runs until stop().
  void run();
  // Handles what is ready now, waiting up to `wait` for the first event. Returns the number of
  // events handled.
  int run_once(std::chrono::microseconds wait);
  // Makes run() return. Any thread.
  void stop();

 private:
  explicit EventLoop(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
