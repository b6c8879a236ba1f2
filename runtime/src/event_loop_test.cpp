// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "krg/runtime/unique_fd.h"
#include "krg/runtime/worker_pool.h"

namespace krg {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

EventLoop make_loop() {
  auto loop = EventLoop::create();
  EXPECT_TRUE(loop);
  return std::move(*loop);
}

UniqueFd make_ready_descriptor() {
  return UniqueFd(eventfd(1, EFD_CLOEXEC));
}

TEST(EventLoop, ReportsReadableDescriptorUntilTheWatchEnds) {
  EventLoop loop = make_loop();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  UniqueFd reader(ends[0]), writer(ends[1]);
  int calls = 0;
  EventLoop::Watch watch;
  auto made = loop.watch(reader.get(), EPOLLIN, [&](uint32_t events) {
    EXPECT_TRUE(events & EPOLLIN);
    if (++calls == 2) watch.reset();  // inside its own callback
  });
  ASSERT_TRUE(made);
  watch = std::move(*made);
  EXPECT_EQ(loop.run_once(microseconds(0)), 0);
  ASSERT_EQ(write(writer.get(), "x", 1), 1);
  for (int i = 0; i < 5; ++i) loop.run_once(microseconds(0));
  EXPECT_EQ(calls, 2);
}

TEST(EventLoop, FiresTimersInOrderAndDisarmsDestroyedOnes) {
  EventLoop loop = make_loop();
  std::string order;
  auto late = loop.after(milliseconds(4), [&] { order += 'b', loop.stop(); });
  auto early = loop.after(milliseconds(1), [&] { order += 'a'; });
  {
    auto dropped = loop.after(milliseconds(2), [&] { order += 'x'; });
  }
  loop.run();
  EXPECT_EQ(order, "ab");
}

TEST(EventLoop, RepeatsPeriodicTimers) {
  EventLoop loop = make_loop();
  int fired = 0;
  auto timer = loop.every(milliseconds(1), [&] {
    if (++fired == 3) loop.stop();
  });
  loop.run();
  EXPECT_EQ(fired, 3);
}

TEST(EventLoop, RunsPostedWorkFromAnotherThread) {
  EventLoop loop = make_loop();
  std::thread::id ran;
  std::thread other([&] {
    loop.post([&] {
      ran = std::this_thread::get_id();
      loop.stop();
    });
  });
  loop.run();
  other.join();
  EXPECT_EQ(ran, std::this_thread::get_id());
}

// A descriptor that is always ready and whose callback asks to be served first.
TEST(EventLoop, ServesFirstOnceThenRunsHooks) {
  EventLoop loop = make_loop();
  const UniqueFd ready = make_ready_descriptor();
  std::string order;
  auto watch = loop.watch(ready.get(), EPOLLIN, [&](uint32_t) {
    order += 'd';
    loop.serve_first();
  });
  ASSERT_TRUE(watch);
  auto hook = loop.add_idle_hook([&] {
    order += 'h';
    return microseconds(0);
  });
  for (int i = 0; i < 5; ++i) loop.run_once(microseconds(0));
  EXPECT_EQ(order, "hddhddhd");
}

// A hook answers somebody, whose next question is served in the same round.
TEST(EventLoop, DoesNotServeFirstAgainWhatItHasServedSince) {
  EventLoop loop = make_loop();
  const UniqueFd ready = make_ready_descriptor();
  std::string order;
  auto watch = loop.watch(ready.get(), EPOLLIN, [&](uint32_t) { order += 'd'; });
  ASSERT_TRUE(watch);
  auto hook = loop.add_idle_hook([&] {
    order += 'h';
    loop.serve_first();
    return microseconds(0);
  });
  for (int i = 0; i < 3; ++i) loop.run_once(microseconds(0));
  EXPECT_EQ(order, "hdhdhd");
}

TEST(EventLoop, RunsWhatAHookPostedBeforeItServesDescriptors) {
  EventLoop loop = make_loop();
  const UniqueFd ready = make_ready_descriptor();
  std::string order;
  auto watch = loop.watch(ready.get(), EPOLLIN, [&](uint32_t) { order += 'd'; });
  ASSERT_TRUE(watch);
  auto hook = loop.add_idle_hook([&] {
    if (order.empty()) loop.post([&] { order += 'p'; });
    return order.empty() ? EventLoop::kHandled : microseconds(0);
  });
  while (order.find('d') == std::string::npos) loop.run_once(microseconds(0));
  EXPECT_EQ(order, "pd");
}

TEST(WorkerPool, RunsWorkInWorkersAndDoneInTheLoop) {
  EventLoop loop = make_loop();
  WorkerPool pool(loop, 3);
  std::atomic<int> worked = 0;
  int done = 0;
  for (int i = 0; i < 20; ++i) {
    pool.submit([&] { ++worked; },
                [&] {
                  if (++done == 20) loop.stop();
                });
  }
  loop.run();
  EXPECT_EQ(worked, 20);
  EXPECT_EQ(done, 20);
}

TEST(WorkerPool, WhatWorkHoldsEndsInTheLoopBeforeDone) {
  EventLoop loop = make_loop();
  WorkerPool pool(loop, 1);
  std::string order;
  const auto end = [&, self = std::this_thread::get_id()](int* held) {
    order += std::this_thread::get_id() == self ? "held " : "elsewhere ";
    delete held;
  };
  pool.submit([held = std::shared_ptr<int>(new int(1), end)] { *held = 2; },
              [&] { order += "done "; });
  pool.submit([held = std::shared_ptr<int>(new int(1), end)] { *held = 2; }, {});
  pool.submit([] {}, [&] { loop.stop(); });
  loop.run();
  EXPECT_EQ(order, "held done held ");
}

}  // namespace
}  // namespace krg
