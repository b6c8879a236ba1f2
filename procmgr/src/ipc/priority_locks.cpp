// SPDX-License-Identifier: GPL-2.0-or-later
#include "priority_locks.h"

#include <linux/futex.h>

#include <cstring>
#include <utility>

#include "gather.h"
#include "ipc_home.h"

namespace krg {

using namespace futex_messages;
using Why = WaitingCalls::Why;

namespace priority_lock {

bool is_free(uint32_t word) {
  return (word & FUTEX_TID_MASK) == 0;
}

bool is_owned(uint32_t word, pid_t by) {
  return (word & FUTEX_TID_MASK) == static_cast<uint32_t>(by);
}

uint32_t changed(uint32_t word, const ChangeLock& change) {
  const bool is_free = priority_lock::is_free(word);
  const bool is_owned = priority_lock::is_owned(word, change.tid);
  if (change.what == ChangeLock::kFree) return is_owned ? 0 : word;
  if (is_owned || (!is_free && change.what == ChangeLock::kTry)) return word;
  // Who has queued does not know of others who have.
  const uint32_t waiters = change.what == ChangeLock::kTake ? FUTEX_WAITERS : word & FUTEX_WAITERS;
  if (!is_free) return word | waiters;
  return static_cast<uint32_t>(change.tid) | (word & FUTEX_OWNER_DIED) | waiters;
}

}  // namespace priority_lock

using namespace priority_lock;

namespace {
constexpr auto kLookAgain = std::chrono::seconds(1);
}

PriorityLocks::PriorityLocks(NodeContext& node, WaitingCalls& waits, const SharedWords& words,
                             DeadOwners& owners)
    : node_(node), waits_(waits), words_(words), owners_(owners) {}

void PriorityLocks::lock(Call call, pid_t process, const SharedPlace& place, Deadline deadline,
                         uint64_t ticket) {
  Waiter waiter;
  waiter.place = place;
  waiter.tid = call.tid();
  waiter.address = RemoteAddr{call.arg(0)};
  WaitingCalls::Wait wait;
  wait.deadline = deadline;
  wait.restart = WaitingCalls::Restart::kAlways;
  wait.end = [this, ticket](Why why) { end(ticket, why); };
  waiter.wait = waits_.begin(std::move(call), process, std::move(wait));
  waiters_.emplace(ticket, std::move(waiter));
  queue(ticket);
}

void PriorityLocks::queue(uint64_t ticket) {
  Waiter& waiter = waiters_.at(ticket);
  waiter.state = Waiter::State::kQueueing;
  waiter.is_queued = true;
  waiter.home = ipc_home(node_.messenger);
  QueueWaiter message;
  message.bits = FUTEX_BITSET_MATCH_ANY;
  message.ticket = ticket;
  message.place = Place::of(waiter.place);
  node_.messenger.request(waiter.home, message, {},
                          alive_.guard([this, ticket](const Result<std::string>& queued) {
                            auto found = waiters_.find(ticket);
                            if (found == waiters_.end()) return;
                            if (!queued) found->second.is_queued = false;  // its home has failed
                            look(ticket);
                          }));
}

void PriorityLocks::look(uint64_t ticket) {
  Waiter& waiter = waiters_.at(ticket);
  waiter.state = Waiter::State::kLooking;
  waiter.look.reset();
  change(waiter.place, waiter.tid, ChangeLock::kTake,
         alive_.guard([this, ticket](const Result<uint32_t>& word) { looked(ticket, word); }));
}

void PriorityLocks::looked(uint64_t ticket, const Result<uint32_t>& word) {
  Waiter& waiter = waiters_.at(ticket);
  words_.let_go(waiter.place);
  if (!word) return finish(ticket, EFAULT);
  if (is_free(*word)) return finish(ticket, 0);
  if (is_owned(*word, waiter.tid)) return finish(ticket, EDEADLK);
  waiter.state = Waiter::State::kWaiting;
  if (waiter.why) return leave(ticket);
  if (!waiter.is_queued) return queue(ticket);
  if (std::exchange(waiter.has_looked, true))
    owners_.check_owner(waiter.place, waiter.tid, waiter.address, *word | FUTEX_WAITERS);
  waiter.look = node_.loop.after(kLookAgain, [this, ticket] { look(ticket); });
}

bool PriorityLocks::woken(uint64_t ticket) {
  auto found = waiters_.find(ticket);
  if (found == waiters_.end()) return false;
  found->second.is_queued = false;
  if (found->second.state == Waiter::State::kWaiting) look(ticket);
  return true;
}

void PriorityLocks::look_at_set(SetId set) {
  std::vector<uint64_t> tickets;
  for (const auto& [ticket, waiter] : waiters_)
    if (waiter.place.set == set && waiter.state == Waiter::State::kWaiting)
      tickets.push_back(ticket);
  for (uint64_t ticket : tickets) look(ticket);
}

void PriorityLocks::home_failed(NodeId failed) {
  std::vector<uint64_t> tickets;
  for (auto& [ticket, waiter] : waiters_) {
    if (waiter.home != failed) continue;
    waiter.is_queued = false;
    if (waiter.state == Waiter::State::kWaiting) tickets.push_back(ticket);
  }
  for (uint64_t ticket : tickets) look(ticket);
}

// While it looks at the word it may get the lock: that is seen first.
void PriorityLocks::end(uint64_t ticket, Why why) {
  auto found = waiters_.find(ticket);
  if (found == waiters_.end()) return;
  found->second.why = why;
  if (found->second.state == Waiter::State::kWaiting) leave(ticket);
}

void PriorityLocks::leave(uint64_t ticket) {
  Waiter& waiter = waiters_.at(ticket);
  waiter.state = Waiter::State::kLeaving;
  waiter.look.reset();
  LeaveQueue message;
  message.ticket = ticket;
  node_.messenger.request(
      waiter.home, message, {}, alive_.guard([this, ticket](const Result<std::string>& answer) {
        const Waiter& waiter = waiters_.at(ticket);
        // It was woken: that is another one's now.
        if (answer && *answer != std::string(1, '\1')) owners_.wake_one(waiter.place);
        if (waiter.why != Why::kSignal)
          return finish(ticket, waiter.why == Why::kTimeout ? ETIMEDOUT : ESRCH);
        waits_.interrupted(waiter.wait);
        waiters_.erase(ticket);
      }));
}

// Who leaves its queue before it was woken says so; a wake-up on its way then reaches nobody, and
// its owner wakes the next one.
void PriorityLocks::finish(uint64_t ticket, int error) {
  Waiter waiter = std::move(waiters_.extract(ticket).mapped());
  if (waiter.is_queued && waiter.state != Waiter::State::kLeaving) {
    LeaveQueue message;
    message.ticket = ticket;
    node_.messenger.request(waiter.home, message, {}, [](const Result<std::string>&) {});
  }
  Call call = waits_.finish(waiter.wait);
  error == 0 ? call.succeed(0) : call.fail(error);
}

void PriorityLocks::try_lock(Call call, const SharedPlace& place) {
  const pid_t tid = call.tid();
  change(place, tid, ChangeLock::kTry,
         [tid, call = shared(std::move(call))](const Result<uint32_t>& word) {
           if (!word) return call->fail(EFAULT);
           if (is_free(*word)) return call->succeed(0);
           call->fail(is_owned(*word, tid) ? EDEADLK : EAGAIN);
         });
}

void PriorityLocks::unlock(Call call, const SharedPlace& place) {
  const pid_t tid = call.tid();
  change(place, tid, ChangeLock::kFree,
         alive_.guard(
             [this, place, tid, call = shared(std::move(call))](const Result<uint32_t>& word) {
               words_.let_go(place);
               if (!word) return call->fail(EFAULT);
               if (!is_owned(*word, tid)) return call->fail(EPERM);
               owners_.wake_one(place);
               call->succeed(0);
             }));
}

void PriorityLocks::change(const SharedPlace& place, pid_t tid, ChangeLock::What what,
                           std::function<void(Result<uint32_t>)> done) {
  ChangeLock message;
  message.what = what;
  message.tid = tid;
  message.place = Place::of(place);
  node_.messenger.request(node_.self, message, {},
                          [done = std::move(done)](const Result<std::string>& answer) {
                            if (!answer) return done(answer.error());
                            uint32_t before = 0;
                            if (answer->size() != sizeof before)
                              return done(errno_error("answer of another version", EPROTO));
                            std::memcpy(&before, answer->data(), sizeof before);
                            done(before);
                          });
}

}  // namespace krg
