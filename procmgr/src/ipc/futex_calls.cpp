// SPDX-License-Identifier: GPL-2.0-or-later
#include "futex_calls.h"

#include <linux/futex.h>
#include <sys/syscall.h>

#include <cstring>

#include "futex_abi.h"
#include "futex_messages.h"
#include "gather.h"
#include "in_worker.h"
#include "ipc_caller.h"
#include "ipc_home.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

using namespace futex_messages;
using Clock = WaitingCalls::Clock;

constexpr auto kLookAgain = std::chrono::seconds(1);

int command_of(const SyscallBroker::Call& call) {
  return static_cast<int>(call.arg(1)) & FUTEX_CMD_MASK;
}

Result<std::optional<Clock::time_point>> deadline_of(const SyscallBroker::Call& call) {
  const RemoteAddr address{call.arg(3)};
  if (address.value == 0) return std::optional<Clock::time_point>();
  auto bytes = call.read_memory(address, sizeof(timespec));
  if (!bytes) return errno_error("futex", EFAULT);
  timespec time;
  std::memcpy(&time, bytes->data(), sizeof time);
  if (time.tv_sec < 0 || time.tv_nsec < 0 || time.tv_nsec >= 1'000'000'000)
    return errno_error("futex", EINVAL);
  // A century is as good as for ever.
  auto distance = std::chrono::seconds(std::min<int64_t>(time.tv_sec, 3'000'000'000)) +
                  std::chrono::nanoseconds(time.tv_nsec);
  if (const int command = command_of(call); command != FUTEX_WAIT) {  // then a point in time
    const bool real = command == FUTEX_LOCK_PI || (call.arg(1) & FUTEX_CLOCK_REALTIME);
    timespec now;
    clock_gettime(real ? CLOCK_REALTIME : CLOCK_MONOTONIC, &now);
    distance -= std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }
  return std::optional(Clock::now() + distance);
}

}  // namespace

// What a wake or a requeue asks for.
struct FutexCalls::Ask {
  SharedPlace place, to;
  uint32_t wake = 0, move = 0, bits = FUTEX_BITSET_MATCH_ANY;
};

FutexCalls::FutexCalls(NodeContext& node, SyscallBroker& broker, WaitingCalls& waits,
                       ExitWatch& exits, SharedWords words)
    : node_(node),
      waits_(waits),
      exits_(exits),
      words_(std::move(words)),
      owners_(node),
      locks_(node, waits, words_, owners_),
      bells_(node.loop, words_.memory,
             [this](const SharedPlace& place, uint32_t count) { rung(place, count); }) {
  broker.set_handler(SYS_futex, [this](Call call) { on_call(std::move(call)); });
  for (int number : {kFutexWaitv, kFutexWait, kFutexRequeue})
    broker.set_handler(number, [this](Call call) { on_newer_call(std::move(call)); });
  node.messenger.on<WaiterWoken>([this](NodeId, const WaiterWoken& message, std::string_view) {
    woken(message.ticket, message.place.value());
  });
  node.messenger.on<LookAtWords>([this](NodeId, const LookAtWords& message, std::string_view) {
    look_at_set(SetId{message.set});
  });
  node.messenger.on_request<HangBells>(
      [this](NodeId from, const HangBells& message, std::string_view, Messenger::Reply reply) {
        follow_home(from);
        bells_.hang(message.place.value(), message.count,
                    [reply = shared(std::move(reply))] { reply->ok(); });
      });
  node.messenger.on<TakeBells>([this](NodeId from, const TakeBells& message, std::string_view) {
    follow_home(from);
    if (message.count == TakeBells::kAll) return bells_.take_all(message.place.value());
    bells_.take(message.place.value(), message.count);
  });
  node.messenger.on_peer_failure(alive_.guard([this](NodeId failed) { on_home_failure(failed); }));
}

void FutexCalls::on_call(Call call) {
  if (!words_.exist()) return call.go_on();
  const auto state = read_signal_state(call.tid());
  if (!state) return call.fail(ESRCH);
  const RemoteAddr address{call.arg(0)};
  const auto place = words_.locate(state->process, address);
  if (!place) return call.go_on();
  if (address.value % sizeof(uint32_t) != 0) return call.fail(EINVAL);
  remember(state->process, place->set);
  switch (command_of(call)) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
      return on_wait(std::move(call), state->process, *place);
    case FUTEX_WAKE_BITSET:
      return on_wake(std::move(call), *place);
    case FUTEX_REQUEUE:
    case FUTEX_CMP_REQUEUE:
      return on_requeue(std::move(call), state->process, *place);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
      return on_lock(std::move(call), state->process, *place);
    case FUTEX_TRYLOCK_PI:
      return locks_.try_lock(std::move(call), *place);
    case FUTEX_UNLOCK_PI:
      return locks_.unlock(std::move(call), *place);
    default:  // conditions with priority inheritance, which the C library uses no more
      return call.fail(ENOSYS);
  }
}

// Calls of newer kernels, which a program does without where the kernel is older.
void FutexCalls::on_newer_call(Call call) {
  if (!words_.exist()) return call.go_on();
  const auto state = read_signal_state(call.tid());
  if (!state) return call.fail(ESRCH);
  std::vector<RemoteAddr> words;
  if (call.number() == kFutexWait) {
    words.push_back(RemoteAddr{call.arg(0)});
  } else {
    const uint64_t count = call.number() == kFutexRequeue ? 2 : call.arg(1) & 0xffff'ffff;
    if (count > FUTEX_WAITV_MAX || call.arg(0) == 0) return call.go_on();  // to be refused
    auto bytes = call.read_memory(RemoteAddr{call.arg(0)}, count * sizeof(futex_waitv));
    if (!call.is_valid()) return call.fail(ESRCH);
    if (!bytes) return call.fail(EFAULT);
    std::vector<futex_waitv> waits(count);
    std::memcpy(waits.data(), bytes->data(), bytes->size());
    for (const futex_waitv& wait : waits)
      if (!(wait.flags & FUTEX_PRIVATE_FLAG)) words.push_back(RemoteAddr{wait.uaddr});
  }
  for (RemoteAddr word : words)
    if (words_.locate(state->process, word)) return call.fail(ENOSYS);
  call.go_on();
}

void FutexCalls::on_lock(Call call, pid_t process, const SharedPlace& place) {
  auto deadline = deadline_of(call);
  if (!call.is_valid()) return call.fail(ESRCH);
  if (!deadline) return call.fail(deadline.error().errno_or(EINVAL));
  locks_.lock(std::move(call), process, place, *deadline, next_ticket_++);
}

void FutexCalls::on_wait(Call call, pid_t process, const SharedPlace& place) {
  const bool has_bits = command_of(call) == FUTEX_WAIT_BITSET;
  const uint32_t bits = has_bits ? static_cast<uint32_t>(call.arg(5)) : FUTEX_BITSET_MATCH_ANY;
  if (bits == 0) return call.fail(EINVAL);
  auto deadline = deadline_of(call);
  if (!call.is_valid()) return call.fail(ESRCH);
  if (!deadline) return call.fail(deadline.error().errno_or(EINVAL));
  const uint64_t ticket = next_ticket_++;
  Waiter waiter;
  waiter.home = ipc_home(node_.messenger);
  waiter.place = place;
  waiter.tid = call.tid();
  waiter.address = RemoteAddr{call.arg(0)};
  waiter.expected = static_cast<uint32_t>(call.arg(2));
  WaitingCalls::Wait wait;
  wait.deadline = *deadline;
  wait.restart =
      *deadline ? WaitingCalls::Restart::kWithoutHandler : WaitingCalls::Restart::kAsHandlerSays;
  wait.end = [this, ticket](WaitingCalls::Why why) { leave(ticket, why); };
  waiter.wait = waits_.begin(std::move(call), process, std::move(wait));
  waiters_.emplace(ticket, std::move(waiter));

  QueueWaiter message;
  message.bits = bits;
  message.ticket = ticket;
  message.place = Place::of(place);
  node_.messenger.request(ipc_home(node_.messenger), message, {},
                          alive_.guard([this, ticket](Result<std::string> queued) {
                            // A home that has failed wakes everybody, see on_home_failure().
                            if (queued) look_at_word(ticket);
                          }));
}

void FutexCalls::read_word(pid_t tid, RemoteAddr address,
                           std::function<void(std::optional<uint32_t>)> done) {
  in_worker(
      node_.workers, [tid, address] { return read_word_of(tid, address); },
      std::function<void(std::optional<uint32_t>)>(alive_.guard(std::move(done))));
}

// A word that krgd cannot read now, the program finds out about itself: it tries again.
void FutexCalls::look_at_word(uint64_t ticket) {
  auto found = waiters_.find(ticket);
  if (found == waiters_.end() || found->second.leaving) return;
  read_word(found->second.tid, found->second.address, [this, ticket](std::optional<uint32_t> word) {
    auto waiter = waiters_.find(ticket);
    if (waiter == waiters_.end() || waiter->second.leaving) return;
    Waiter& found = waiter->second;
    if (!word || *word != found.expected) return leave(ticket, std::nullopt);
    if (std::exchange(found.has_looked, true))
      owners_.check_owner(found.place, found.tid, found.address, *word);
    words_.let_go(found.place);
    look_again(ticket);
  });
}

void FutexCalls::look_at_set(SetId set) {
  for (const auto& [ticket, waiter] : waiters_)
    if (waiter.place.set == set) look_at_word(ticket);  // looks later, from a worker
  locks_.look_at_set(set);
}

void FutexCalls::look_again(uint64_t ticket) {
  waiters_.at(ticket).look = node_.loop.after(kLookAgain, [this, ticket] { look_at_word(ticket); });
}

// The home says whether it has been woken meanwhile: then it is a wake-up that counts.
void FutexCalls::leave(uint64_t ticket, std::optional<WaitingCalls::Why> why) {
  auto found = waiters_.find(ticket);
  if (found == waiters_.end() || found->second.leaving) return;
  found->second.leaving = true;
  found->second.why = why;
  LeaveQueue message;
  message.ticket = ticket;
  node_.messenger.request(found->second.home, message, {},
                          alive_.guard([this, ticket](Result<std::string> answer) {
                            left(ticket, answer && *answer == std::string(1, '\1'));
                          }));
}

void FutexCalls::left(uint64_t ticket, bool waited) {
  auto waiter = waiters_.extract(ticket);
  if (waiter.empty()) return;  // woken
  const auto [wait, why] = std::pair(waiter.mapped().wait, waiter.mapped().why);
  if (waited && why == WaitingCalls::Why::kSignal) return waits_.interrupted(wait);
  Call call = waits_.finish(wait);
  if (!waited) return call.succeed(0);  // as a wake-up without cause
  if (why == WaitingCalls::Why::kTimeout) return call.fail(ETIMEDOUT);
  call.fail(EAGAIN);
}

void FutexCalls::woken(uint64_t ticket, const SharedPlace& place) {
  if (locks_.woken(ticket)) return;
  auto waiter = waiters_.extract(ticket);
  if (waiter.empty()) return;
  if (waits_.finish(waiter.mapped().wait).try_succeed(0)) return;
  // Its caller has died: the wake-up is somebody else's.
  WakeWaiters message;
  message.wake = 1;
  message.place = Place::of(place);
  node_.messenger.request(ipc_home(node_.messenger), message, {},
                          [](const Result<std::string>&) {});
}

void FutexCalls::on_wake(Call call, const SharedPlace& place) {
  Ask ask{place, {}, static_cast<uint32_t>(call.arg(2)), 0, static_cast<uint32_t>(call.arg(5))};
  if (ask.bits == 0) return call.fail(EINVAL);
  // Linux wakes one even where it is asked for none or fewer (futex_wake()).
  if (static_cast<int32_t>(ask.wake) < 1) ask.wake = 1;
  wake(std::move(call), ask);
}

void FutexCalls::on_requeue(Call call, pid_t process, const SharedPlace& place) {
  const auto to = words_.locate(process, RemoteAddr{call.arg(4)});
  const auto wake_count = static_cast<int32_t>(call.arg(2));
  const auto move_count = static_cast<int32_t>(call.arg(3));
  if (!to || wake_count < 0 || move_count < 0 || call.arg(4) % sizeof(uint32_t) != 0)
    return call.fail(EINVAL);
  const Ask ask{place, *to, static_cast<uint32_t>(wake_count), static_cast<uint32_t>(move_count)};
  if (command_of(call) == FUTEX_REQUEUE) return wake(std::move(call), ask);
  const pid_t tid = call.tid();
  const RemoteAddr address{call.arg(0)};
  read_word(tid, address,
            [this, ask, call = shared(std::move(call))](std::optional<uint32_t> word) {
              if (!word || *word != static_cast<uint32_t>(call->arg(5))) return call->fail(EAGAIN);
              wake(std::move(*call), ask);
            });
}

void FutexCalls::wake(Call call, const Ask& ask) {
  WakeWaiters message;
  message.bits = ask.bits;
  message.wake = ask.wake;
  message.move = ask.move;
  message.place = Place::of(ask.place);
  message.to = Place::of(ask.to);
  node_.messenger.request(
      ipc_home(node_.messenger), message, {},
      alive_.guard([call = shared(std::move(call))](Result<std::string> answer) {
        int64_t count = 0;  // a home that has failed: its waiters are woken all the same
        if (answer && answer->size() == sizeof count)
          std::memcpy(&count, answer->data(), sizeof count);
        call->succeed(count);
      }));
}

// Queues are lost with the node that kept them: everybody looks at the word again.
void FutexCalls::on_home_failure(NodeId failed) {
  std::vector<uint64_t> lost;
  for (const auto& [ticket, waiter] : waiters_)
    if (waiter.home == failed) lost.push_back(ticket);
  for (uint64_t ticket : lost) left(ticket, false);
  locks_.home_failed(failed);
  if (bells_home_ == failed) follow_home(kNoNode);
}

// What another home had hung is nothing to the new one.
void FutexCalls::follow_home(NodeId home) {
  if (std::exchange(bells_home_, home) != home) bells_.take_all();
}

void FutexCalls::rung(const SharedPlace& place, uint32_t count) {
  words_.let_go(place);
  BellsRung message;
  message.count = count;
  message.place = Place::of(place);
  if (!node_.messenger.send(bells_home_, message)) log_debug("ipc", "the futexes' home has failed");
}

void FutexCalls::remember(pid_t process, SetId set) {
  if (used_[process].insert(set).second) exits_.add(process);
}

void FutexCalls::process_ended(pid_t process) {
  auto sets = used_.extract(process);
  if (sets.empty()) return;
  for (SetId set : sets.mapped()) {
    LookAtWords message;
    message.set = set.value;
    for (NodeId peer : living_nodes(node_.messenger))
      if (!node_.messenger.send(peer, message)) log_debug("ipc", "node {} has failed", peer.value);
  }
}

}  // namespace krg
