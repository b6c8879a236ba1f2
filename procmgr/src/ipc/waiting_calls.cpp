// SPDX-License-Identifier: GPL-2.0-or-later
#include "waiting_calls.h"

#include <set>

#include "ipc_caller.h"
#include "seized_thread.h"

namespace krg {
namespace {

int restart_code(WaitingCalls::Restart restart) {
  switch (restart) {
    case WaitingCalls::Restart::kAlways:
      return kRestartAlways;
    case WaitingCalls::Restart::kAsHandlerSays:
      return kRestartAsHandlerSays;
    default:
      return kRestartWithoutHandler;
  }
}

// How long after a call began it is looked at first, and how rarely at the end.
constexpr auto kFirstPause = std::chrono::milliseconds(4);
constexpr auto kLongestPause = std::chrono::milliseconds(50);

}  // namespace

WaitingCalls::WaitingCalls(EventLoop& loop, ExitWatch& exits) : loop_(loop), exits_(exits) {}

uint64_t WaitingCalls::begin(Call call, pid_t process, Wait wait) {
  const uint64_t number = next_number_++;
  const auto now = Clock::now();
  auto next = now + kFirstPause;
  if (wait.deadline) next = std::min(next, *wait.deadline);
  waits_.emplace(number,
                 Entry{std::move(call), std::move(wait), process, now + kFirstPause, kFirstPause});
  schedule(next);
  return number;
}

const WaitingCalls::Call* WaitingCalls::find(uint64_t number) const {
  auto found = waits_.find(number);
  return found == waits_.end() ? nullptr : &found->second.call;
}

WaitingCalls::Call WaitingCalls::finish(uint64_t number) {
  auto entry = waits_.extract(number);
  check(!entry.empty(), "a wait is finished once");
  return std::move(entry.mapped().call);
}

// A freeze may take its time to begin after the wait has ended for it, and is not to be seen: the
// call is made anew until then, also where a signal would not have it so.
void WaitingCalls::interrupted(uint64_t number) {
  const Entry& entry = waits_.at(number);
  const auto restart = entry.wait.restart;
  const bool has_to_stop = this->has_to_stop(entry);
  Call call = finish(number);
  auto state = read_signal_state(call.tid());
  const bool has_own_signal = state && state->has_own_signal();
  if (restart == Restart::kNever && (has_own_signal || !has_to_stop)) return call.fail(EINTR);
  const int code = restart_code(restart);
  if (has_own_signal) return call.fail(code);
  auto thread = SeizedThread::seize_and_interrupt(call.tid());
  call.fail(thread || has_to_stop ? code : EINTR);  // seized by who freezes it
  if (thread) thread->wait();
}

void WaitingCalls::process_ended(pid_t process) {
  Ends over;
  for (const auto& [number, entry] : waits_)
    if (entry.process == process && !entry.told) over.emplace_back(number, Why::kGone);
  tell(over);
}

void WaitingCalls::schedule(Clock::time_point when) {
  if (timer_ && timer_at_ <= when) return;
  timer_at_ = when;
  const auto delay =
      std::chrono::ceil<std::chrono::microseconds>(std::max(when - Clock::now(), {}));
  timer_ = loop_.after(delay, [this] { look_at_due(); });
}

// Owners finish calls while they are told: so first see, then tell.
void WaitingCalls::look_at_due() {
  const auto now = Clock::now();
  auto next = Clock::time_point::max();
  Ends over;
  std::set<pid_t> long_waiting;
  for (auto& [number, entry] : waits_) {
    if (entry.told) continue;
    if (auto why = reason(entry, now)) {
      over.emplace_back(number, *why);
      continue;
    }
    if (entry.pause != kFirstPause) long_waiting.insert(entry.process);
    next = std::min(next, entry.next_look);
    if (entry.wait.deadline) next = std::min(next, *entry.wait.deadline);
  }
  timer_.reset();
  timer_at_ = Clock::time_point::max();
  if (next != Clock::time_point::max()) schedule(next);
  tell(over);
  for (pid_t process : long_waiting) exits_.add(process);
}

std::optional<WaitingCalls::Why> WaitingCalls::reason(Entry& entry, Clock::time_point now) {
  if (entry.next_look <= now) {
    if (auto why = look(entry)) return why;
    entry.pause = std::min(entry.pause * 2, kLongestPause);
    entry.next_look = now + entry.pause;
  }
  if (entry.wait.deadline && *entry.wait.deadline <= now) return Why::kTimeout;
  return std::nullopt;
}

std::optional<WaitingCalls::Why> WaitingCalls::look(Entry& entry) {
  const pid_t tid = entry.call.tid();
  auto state = read_signal_state(tid);
  if (!state || state->has_ended() || !entry.call.is_valid()) return Why::kGone;
  if (state->has_own_signal()) return Why::kSignal;
  if (has_to_stop(entry)) return Why::kSignal;
  // Of several threads, the one that the kernel chose takes it at once, unless it waits itself.
  const bool seen_before = std::exchange(entry.saw_shared_signal, state->has_shared_signal());
  if (entry.saw_shared_signal && seen_before) return Why::kSignal;
  if (state->threads > 1 && is_group_stopped(state->process, tid)) return Why::kSignal;
  return std::nullopt;
}

bool WaitingCalls::has_to_stop(const Entry& entry) const {
  if (entry.wait.has_to_stop) return entry.wait.has_to_stop();
  return has_to_stop_ && has_to_stop_(entry.process);
}

void WaitingCalls::tell(const Ends& over) {
  for (const auto& [number, why] : over) {
    auto found = waits_.find(number);
    if (found == waits_.end()) continue;
    found->second.told = true;
    auto end = std::move(found->second.wait.end);  // it may finish the call, and so this entry
    end(why);
  }
}

}  // namespace krg
