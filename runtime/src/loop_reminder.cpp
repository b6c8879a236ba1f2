// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/loop_reminder.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <utility>

#include "cycle_counter.h"
#include "krg/runtime/short_slice.h"

namespace krg {
namespace {

using std::chrono::nanoseconds;

constexpr std::chrono::microseconds kTurn{100};
// So long is looked at together: 2 to 8 ms, by how fast the processor counts; longer, where the
// loop has so little to do that nobody waits for it.
constexpr uint64_t kReminderCycles = 8'000'000;
constexpr std::chrono::milliseconds kLongestWindow{50};
// It is kept for 0.1 to 0.4 s, then it is seen whether the loop has to wait again without it; it
// rests when the loop has had nothing to do for 3 to 10 ms.
constexpr uint64_t kKeptCycles = 400'000'000, kRestCycles = 10'000'000;

nanoseconds now() {
  return std::chrono::steady_clock::now().time_since_epoch();
}

// Goes before all else where that is allowed; the scheduler looks for who is next behind it.
void take_precedence() {
  sched_param least{};
  least.sched_priority = sched_get_priority_min(SCHED_FIFO);
  if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &least) != 0)
    static_cast<void>(take_short_slices(kTurn));  // without them it is woken a little later
}

bool go_to(int processor) {
  if (processor < 0 || processor >= CPU_SETSIZE) return false;
  cpu_set_t only;
  CPU_ZERO(&only);
  CPU_SET(static_cast<size_t>(processor), &only);
  return sched_setaffinity(0, sizeof only, &only) == 0;
}

}  // namespace

LoopReminder::LoopReminder(EventLoop& loop) {
  const std::string file = "/proc/self/task/" + std::to_string(gettid()) + "/schedstat";
  waits_ = UniqueFd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!waits_) return;
  passed_ = now();
  hook_ = loop.add_idle_hook([this] { return look(); });
  thread_ = std::jthread([this](const std::stop_token& stop) { remind(stop); });
}

LoopReminder::~LoopReminder() {
  thread_.request_stop();
  is_awake_ = true;
  is_awake_.notify_one();
}

std::chrono::microseconds LoopReminder::look() {
  const uint64_t cycles = cycle_counter();
  worked_at_.store(cycles, std::memory_order_relaxed);
  processor_.store(sched_getcpu(), std::memory_order_relaxed);
  if (cycles - looked_at_ >= kReminderCycles) {
    looked_at_ = cycles;
    if (waits_for_its_processor()) wanted_till_ = cycles + kKeptCycles;
  }
  if (cycles < wanted_till_ && !is_awake()) {
    is_awake_.store(true);
    is_awake_.notify_one();
  }
  return std::chrono::hours(1);
}

// In the time since it was last asked.
bool LoopReminder::waits_for_its_processor() {
  std::array<char, 96> text{};
  const ssize_t bytes = pread(waits_.get(), text.data(), text.size() - 1, 0);
  const char* second = bytes > 0 ? std::strchr(text.data(), ' ') : nullptr;
  if (!second) return false;
  const nanoseconds waited(std::strtoll(second, nullptr, 10)), passed = now();
  const auto waited_now = waited - std::exchange(waited_, waited);
  const auto passed_now = passed - std::exchange(passed_, passed);
  return passed_now <= kLongestWindow && is_needed(waited_now, passed_now);
}

void LoopReminder::remind(const std::stop_token& stop) {
  prctl(PR_SET_NAME, "krgd-reminder");
  prctl(PR_SET_TIMERSLACK, 1);
  take_precedence();
  constexpr timespec kPause{0, nanoseconds(kTurn).count()};
  int here = -1;
  while (!stop.stop_requested()) {
    is_awake_.wait(false);
    const int processor = processor_.load(std::memory_order_relaxed);
    if (processor != here && go_to(processor)) here = processor;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &kPause, nullptr);
    if (cycle_counter() - worked_at_.load(std::memory_order_relaxed) > kRestCycles)
      is_awake_.store(false);
  }
}

}  // namespace krg
