// Replica: futexes of its threads. A thread that waits stands in its stop; home knows that it
// waits, and says when it has been woken. Its word is looked at here, its time limit is this
// node's. SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/futex.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <ctime>

#include "spread/futex_call.h"
#include "spread/replica.h"

namespace krg {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kLongestSeconds = 1'000'000'000;

bool is_valid(const timespec& time) {
  return time.tv_sec >= 0 && time.tv_nsec >= 0 && time.tv_nsec < kSecondNs;
}

// How long a wait with that limit is from now on.
std::chrono::microseconds time_left(const user_regs_struct& call, const timespec& limit) {
  timespec now{};
  if (futex_operation(call) != FUTEX_WAIT)
    clock_gettime(call.rsi & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
  const int64_t seconds = std::min<int64_t>(limit.tv_sec - now.tv_sec, kLongestSeconds);
  const int64_t ns = seconds * kSecondNs + limit.tv_nsec - now.tv_nsec;
  return std::chrono::microseconds(std::max<int64_t>((ns + 999) / 1000, 0));
}

}  // namespace

// Whether it is one that is answered without the original.
bool Replica::begin_futex(const ThreadPtr& thread, const user_regs_struct& call) {
  const RemoteAddr address{call.rdi};
  if (address.value % sizeof(uint32_t) != 0 || !memory_.find(address)) return false;
  const bool has_bits =
      futex_operation(call) == FUTEX_WAIT_BITSET || futex_operation(call) == FUTEX_WAKE_BITSET;
  if (has_bits && call.r9 == 0) return false;
  const uint32_t bits = has_bits ? static_cast<uint32_t>(call.r9) : FUTEX_BITSET_MATCH_ANY;
  switch (futex_operation(call)) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
      return begin_wait(thread, call, bits);
    case FUTEX_WAKE:
    case FUTEX_WAKE_BITSET:
      wake(thread, call, bits);
      return true;
    default:
      return false;
  }
}

void Replica::wake(const ThreadPtr& thread, const user_regs_struct& call, uint32_t bits) {
  parts_.pages.wakes(thread->traced->tid());
  WakeFutex ask;
  ask.set = parts_.set.value;
  ask.address = call.rdi;
  ask.count = futex_count(call.rdx);
  ask.bits = bits;
  thread->awaits_answer = true;
  parts_.node.messenger.request(parts_.home, ask, {},
                                [this, call, alive = std::weak_ptr(alive_),
                                 weak = std::weak_ptr(thread)](Result<std::string> reply) {
                                  auto thread = weak.lock();
                                  if (alive.expired() || !thread || !thread->awaits_answer) return;
                                  thread->awaits_answer = false;
                                  int64_t woken = 0;
                                  if (!reply && reply.error().errno_or(0) == EAGAIN)
                                    return call_at_home(thread, call);
                                  if (!reply || reply->size() != sizeof woken)
                                    return end_thread(thread);
                                  std::memcpy(&woken, reply->data(), sizeof woken);
                                  answer(thread, woken);
                                });
}

bool Replica::begin_wait(const ThreadPtr& thread, const user_regs_struct& call, uint32_t bits) {
  if (call.r10 == 0) {
    wait(thread, call, bits, std::nullopt);
    return true;
  }
  const auto limit = memory_.offset_of(RemoteAddr{call.r10}, sizeof(timespec));
  if (!limit) return false;
  parts_.pages.read(*limit, sizeof(timespec),
                    [this, call, bits, alive = std::weak_ptr(alive_),
                     weak = std::weak_ptr(thread)](Result<std::string> bytes) {
                      auto thread = weak.lock();
                      if (alive.expired() || !thread) return;
                      timespec time{};
                      if (bytes) std::memcpy(&time, bytes->data(), sizeof time);
                      if (!bytes || !is_valid(time)) return call_at_home(thread, call);
                      wait(thread, call, bits, time_left(call, time));
                    });
  return true;
}

void Replica::wait(const ThreadPtr& thread, const user_regs_struct& call, uint32_t bits,
                   std::optional<std::chrono::microseconds> limit) {
  thread->wait.emplace();
  thread->wait->call = call;
  look_at_word(thread, [this, thread, bits, limit] {
    QueueFutex ask;
    ask.set = parts_.set.value;
    ask.tid = thread->tid;
    ask.address = thread->wait->call.rdi;
    ask.bits = bits;
    thread->wait->is_queued = true;
    parts_.pages.waits(thread->traced->tid());
    if (limit)
      thread->wait->timer = parts_.node.loop.after(*limit, [this, weak = std::weak_ptr(thread)] {
        if (auto waiting = weak.lock()) leave(waiting, -ETIMEDOUT);
      });
    // What home hears of the word's writers, of this node or its own, it hears after this. A third
    // node's may be quicker: then the word is not what it was.
    if (parts_.node.node_count <= 2)
      return static_cast<void>(parts_.node.messenger.send(parts_.home, ask));
    parts_.node.messenger.request(parts_.home, ask, {},
                                  [this, alive = std::weak_ptr(alive_),
                                   weak = std::weak_ptr(thread)](const Result<std::string>& reply) {
                                    auto waiting = weak.lock();
                                    if (alive.expired() || !waiting || !reply) return;
                                    if (waiting->wait) look_at_word(waiting, [] {});
                                  });
  });
}

// Goes on with `then` in the moment in which the word is as expected; else the wait ends.
void Replica::look_at_word(const ThreadPtr& thread, std::function<void()> then) {
  const auto offset = memory_.offset_of(RemoteAddr{thread->wait->call.rdi}, sizeof(uint32_t));
  if (!offset) return leave(thread, -EFAULT);
  parts_.pages.read(*offset, sizeof(uint32_t),
                    [this, then = std::move(then), alive = std::weak_ptr(alive_),
                     weak = std::weak_ptr(thread)](Result<std::string> bytes) {
                      auto waiting = weak.lock();
                      if (alive.expired() || !waiting || !waiting->wait) return;
                      uint32_t word = 0;
                      if (bytes) std::memcpy(&word, bytes->data(), sizeof word);
                      if (!bytes) return leave(waiting, -EFAULT);
                      if (word != static_cast<uint32_t>(waiting->wait->call.rdx))
                        return leave(waiting, -EAGAIN);
                      if (waiting->is_recalled && !waiting->wait->is_queued)
                        return leave(waiting, std::nullopt);
                      then();
                    });
}

void Replica::woken(pid_t tid) {
  auto found = threads_.find(tid);
  if (found == threads_.end() || !found->second->wait || found->second->wait->is_leaving) return;
  end_wait(found->second, 0);
}

// Home says whether somebody has woken it before. Without a result it makes the call at home.
void Replica::leave(const ThreadPtr& thread, std::optional<int64_t> result) {
  if (!thread->wait || thread->wait->is_leaving) return;
  if (!thread->wait->is_queued) return end_wait(thread, result);
  thread->wait->is_leaving = true;
  LeaveFutex ask;
  ask.set = parts_.set.value;
  ask.tid = thread->tid;
  parts_.node.messenger.request(parts_.home, ask, {},
                                [this, result, alive = std::weak_ptr(alive_),
                                 weak = std::weak_ptr(thread)](Result<std::string> reply) {
                                  auto waiting = weak.lock();
                                  if (alive.expired() || !waiting || !waiting->wait) return;
                                  if (!reply || reply->size() != 1) return end_thread(waiting);
                                  end_wait(waiting, reply->front() == 0 ? 0 : result);
                                });
}

void Replica::end_wait(const ThreadPtr& thread, std::optional<int64_t> result) {
  const user_regs_struct call = thread->wait->call;
  thread->wait.reset();
  if (!result) {
    thread->is_recalled = false;
    return call_at_home(thread, call, true);
  }
  answer(thread, *result);
  if (thread->is_recalled) thread->traced->interrupt();
}

}  // namespace krg
