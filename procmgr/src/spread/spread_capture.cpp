// SpreadProcess: stands still to be captured (StandingSpread). All threads are held, wherever they
// are, while nobody changes mappings; when what was on its way has come, and each thread is in a
// state that another process can begin with, those at home and the originals of those elsewhere
// are given to a FrozenProcess. One that is in a call without an answer makes it again, here as in
// a process that is made of the image. Where a thread is in another state, all go on for a moment.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sys/syscall.h>

#include <algorithm>
#include <csignal>
#include <set>
#include <utility>

#include "call_registers.h"
#include "kernel_values.h"
#include "spread/spread_capture.h"

namespace krg {
namespace {

constexpr std::chrono::seconds kLongestWait{10};
constexpr std::chrono::milliseconds kLookAgain{1}, kTryAgain{3};
constexpr unsigned kMostLooks = 20;  // while all are held

// What a process that another kernel has made goes on with.
user_regs_struct without_kernels_memory(user_regs_struct registers) {
  if (is_remembered_by_kernel(registers))
    registers.rax = static_cast<uint64_t>(kRestartUnlessHandled);
  return registers;
}

}  // namespace

// --- to a stand ---------------------------------------------------------------------------------

void SpreadProcess::stand(Standing done) {
  if (has_ended_ || threads_.empty()) return done(errno_error("the process died", ESRCH));
  if (capture_ || inspection_)
    return done(errno_error("a debugger looks at it, or it is being saved", EBUSY));
  if (is_stopped_) return done(errno_error("a signal has stopped it", ENOTSUP));
  capture_ = std::make_shared<Capture>();
  capture_->done = std::move(done);
  capture_->limit = parts_.node.loop.after(kLongestWait, [this] {
    give_up_capture(errno_error(fmt::format("it does not come to rest within {} s: {}",
                                            kLongestWait.count(), capture_->obstacle),
                                ETIMEDOUT));
  });
  try_to_stand();
}

// Mappings are not changed from then on. Else end_change() tries again.
void SpreadProcess::try_to_stand() {
  if (!capture_ || capture_->is_held || (changer_ && changer_ != capture_turn_)) return;
  changer_ = capture_turn_;
  capture_->next.reset();
  // Not on top of a stop of a thread.
  parts_.node.loop.post([this, alive = std::weak_ptr(alive_), capture = std::weak_ptr(capture_)] {
    if (!alive.expired() && !capture.expired()) hold_for_capture();
  });
}

void SpreadProcess::hold_for_capture() {
  if (capture_->is_held) return;
  capture_->is_held = true;
  capture_->looks = 0;
  auto left = std::make_shared<size_t>(threads_.size() + parts_.nodes.size() + 1);
  const auto stands = [this, left, capture = std::weak_ptr(capture_)] {
    if (--*left > 0 || capture.expired()) return;
    parts_.node.loop.post([this, alive = std::weak_ptr(alive_), capture] {
      if (!alive.expired() && !capture.expired() && capture_->is_held) ask_elsewhere();
    });
  };
  HoldThreads ask;
  ask.set = set().value;
  ask.why = HoldThreads::Why::kCapture;
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(node, ask, {},
                                  [stands](const Result<std::string>&) { stands(); });
  for (const auto& [tid, thread] : std::map(threads_)) thread->traced->hold(stands);
  stands();
}

// What has been answered before has come there by then.
void SpreadProcess::ask_elsewhere() {
  capture_->answers = answers_;
  capture_->elsewhere.clear();
  auto left = std::make_shared<size_t>(parts_.nodes.size() + 1);
  const auto answered = [this, left, capture = std::weak_ptr(capture_)] {
    if (--*left == 0 && !capture.expired() && capture_->is_held) look_whether_all_rest();
  };
  TellThreads ask;
  ask.set = set().value;
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(
        node, ask, {},
        [this, answered, capture = std::weak_ptr(capture_)](const Result<std::string>& reply) {
          if (capture.expired()) return;
          auto threads =
              reply ? CapturedThreads::parse(*reply) : Result<CapturedThreads>(reply.error());
          if (threads) capture_->elsewhere.merge(*threads);
          answered();
        });
  answered();
}

void SpreadProcess::look_whether_all_rest() {
  Rest all = answers_ == capture_->answers ? Rest::kRests : Rest::kIsAboutToRest;
  capture_->threads.clear();
  for (const auto& [tid, thread] : threads_) {
    CapturedThreadAtHome& captured = capture_->threads[tid];
    captured.thread = thread;
    const Rest rest = rest_of(thread, captured);
    if (rest != Rest::kRests)
      capture_->obstacle =
          fmt::format("thread {} is on its way ({})", tid, static_cast<int>(thread->stands));
    all = std::max(all, rest);
  }
  if (all == Rest::kRests) return take_up();
  if (all == Rest::kIsBusy || ++capture_->looks > kMostLooks) return try_later();
  capture_->next = parts_.node.loop.after(kLookAgain, [this] { ask_elsewhere(); });
}

// All go on for a moment.
void SpreadProcess::try_later() {
  if (is_stopped_) return give_up_capture(errno_error("a signal has stopped it", ENOTSUP));
  end_capture();
  capture_->next = parts_.node.loop.after(kTryAgain, [this] { try_to_stand(); });
}

// They go on, and mappings are changed again; the capture may be tried once more.
void SpreadProcess::end_capture() {
  if (std::exchange(capture_->is_held, false)) {
    HoldThreads tell;
    tell.set = set().value;
    tell.why = HoldThreads::Why::kCapture;
    for (NodeId node : parts_.nodes) static_cast<void>(parts_.node.messenger.send(node, tell));
    for (const auto& [tid, thread] : std::map(threads_))
      if (thread->traced) thread->traced->release();
  }
  if (changer_ == capture_turn_) end_change(capture_turn_);
}

void SpreadProcess::give_up_capture(Error why) {
  if (!capture_ || capture_->is_standing) return;
  const auto capture = capture_;
  end_capture();
  capture_.reset();
  if (auto done = std::exchange(capture->done, nullptr)) done(std::move(why));
}

// --- whether a thread can be captured as it stands ----------------------------------------------

bool SpreadProcess::waits_for_its_turn(const ThreadPtr& thread) const {
  return std::find(changers_.begin(), changers_.end(), thread) != changers_.end();
}

SpreadProcess::Rest SpreadProcess::rest_of(const ThreadPtr& thread,
                                           CapturedThreadAtHome& captured) const {
  if (thread->is_new || thread->is_exiting || thread->is_recalled || thread->returned ||
      thread->move || thread->forks || thread->maps)
    return Rest::kIsBusy;
  auto registers = thread->traced->registers();
  if (!registers) return Rest::kIsBusy;
  captured.live = *registers;
  captured.is_at_entry = thread->traced->last_stop().kind == TraceStop::Kind::kSystemCall &&
                         thread->traced->is_at_entry();
  return thread->node == parts_.node.self ? rest_at_home(thread, captured)
                                          : rest_elsewhere(thread, captured);
}

SpreadProcess::Rest SpreadProcess::rest_at_home(const ThreadPtr& thread,
                                                CapturedThreadAtHome& captured) const {
  using Kind = TraceStop::Kind;
  const bool waits = thread->stands == Stands::kInTeamCall || waits_for_its_turn(thread);
  if (!waits) {
    if (thread->stands != Stands::kRunning) return Rest::kIsBusy;
    if (!thread->traced->is_settled()) return Rest::kIsAboutToRest;
    const TraceStop& stop = thread->traced->last_stop();
    if (stop.kind != Kind::kSystemCall && (stop.kind != Kind::kTrap || stop.signal != SIGTRAP))
      return Rest::kIsBusy;
  }
  // One that krgd has carried out already only leaves.
  if (captured.is_at_entry && (waits || !thread->result)) {
    if (thread->number == SYS_restart_syscall && !thread->waits) return Rest::kIsBusy;
    captured.live = before_the_call(thread->entry);
  }
  captured.image = without_kernels_memory(captured.live);
  return Rest::kRests;
}

// The registers come from there; here its original goes to the kernel's door again, with the call
// that it is to make, unless that has begun.
SpreadProcess::Rest SpreadProcess::rest_elsewhere(const ThreadPtr& thread,
                                                  CapturedThreadAtHome& captured) const {
  const auto found = capture_->elsewhere.find(thread->traced->tid());
  if (found == capture_->elsewhere.end() || !found->second.is_at_rest) return Rest::kIsAboutToRest;
  const CapturedThread& there = found->second;
  const bool is_armed = thread->stands == Stands::kArmed && !thread->call;
  if (!is_armed && !waits_for_its_turn(thread)) {
    const bool is_calling = thread->stands == Stands::kRunning && thread->is_in_call;
    if (!is_calling && thread->stands != Stands::kArming) return Rest::kIsBusy;
    if (!thread->traced->is_settled()) return Rest::kIsAboutToRest;
    if (is_calling && captured.is_at_entry && thread->result) return Rest::kIsBusy;
    if (is_calling && !there.is_in_call) return Rest::kIsAboutToRest;
  }
  captured.arms = captured.is_at_entry || thread->stands == Stands::kArming;
  captured.image =
      there.is_in_call ? before_the_call(there.state.registers) : there.state.registers;
  captured.extended = there.state.extended_state;
  return Rest::kRests;
}

// --- there they stand, and go on ----------------------------------------------------------------

bool SpreadProcess::is_standing() const {
  return capture_ && capture_->is_standing;
}

bool SpreadProcess::is_put_off(std::function<void()> what) {
  if (!is_standing()) return false;
  capture_->put_off.push_back(std::move(what));
  return true;
}

void SpreadProcess::take_up() {
  capture_->limit.reset();
  capture_->is_standing = true;
  auto process = take_threads();
  auto done = std::exchange(capture_->done, nullptr);
  if (process)
    return done(std::shared_ptr<StandingSpread>(
        std::make_shared<StandingProcess>(*this, std::move(*process))));
  go_on(nullptr);
  done(process.error());
}

// What its call has begun here begins anew with it.
void SpreadProcess::leave_entry(const CapturedThreadAtHome& captured) {
  const ThreadPtr& thread = captured.thread;
  if (std::exchange(thread->waits, false)) {
    futexes_.leave(own_ticket(thread));
    if (counts()) counts()->end_futex_wait(thread->traced->tid());
  }
  if (captured.arms) thread->is_in_call = false;
  thread->loans.clear();
  std::erase(changers_, thread);
}

Result<std::shared_ptr<FrozenProcess>> SpreadProcess::take_threads() {
  for (const auto& [tid, captured] : capture_->threads) {
    if (captured.is_at_entry) leave_entry(captured);
    captured.thread->traced->give_up();
    captured.thread->traced.reset();
  }
  const Error died = errno_error("the process died", ESRCH);
  std::shared_ptr<FrozenProcess> process;
  const auto take = [&](pid_t tid, const CapturedThreadAtHome& captured) {
    if (captured.is_at_entry) {  // of no call any more: the stop behind it comes all the same
      user_regs_struct none = captured.live;
      none.orig_rax = kNoRestart;
      if (ptrace(PTRACE_SETREGS, tid, nullptr, &none) != 0 ||
          ptrace(PTRACE_SYSCALL, tid, nullptr, nullptr) != 0 ||
          TraceStop::wait(tid).kind != TraceStop::Kind::kSystemCall)
        return false;
    }
    auto thread = FrozenThread::stopped(tid);
    if (!thread) return false;
    thread->set_registers(captured.image);
    if (process)
      process->add(std::move(*thread));
    else
      process = FrozenProcess::adopt(*parts_.node.children, std::move(*thread), parts_.instruction);
    return true;
  };
  const auto main = capture_->threads.find(parts_.pid);
  if (main == capture_->threads.end()) return errno_error("its main thread has ended", ENOTSUP);
  if (!take(parts_.pid, main->second)) return died;
  for (const auto& [tid, captured] : capture_->threads)
    if (tid != parts_.pid && !take(tid, captured)) return died;
  return process;
}

// `process`: null: not all could be taken.
void SpreadProcess::go_on(const std::shared_ptr<FrozenProcess>& process) {
  const auto capture = capture_;
  std::set<pid_t> gone;
  for (const auto& [tid, captured] : capture->threads) gone.insert(tid);
  if (process) {
    for (const auto& thread : process->threads())
      if (!thread->is_gone()) thread->set_registers(capture->threads.at(thread->tid()).live);
    if (const auto handed = process->hand_over())
      for (pid_t tid : *handed) gone.erase(tid);
  }
  if (gone.contains(parts_.pid)) kill(parts_.pid, SIGKILL);  // it is dying
  capture->is_standing = false;
  for (auto& [tid, captured] : capture->threads) {
    if (gone.contains(tid)) continue;
    captured.thread->traced = traced(tid, captured.thread);
    static_cast<void>(captured.thread->traced->set_options(kTraceOptions));
    captured.arms ? arm(captured.thread) : resume(captured.thread);
  }
  for (pid_t tid : gone) on_gone(tid);
  if (has_ended_) return;
  end_capture();
  capture_.reset();
  for (const auto& what : capture->put_off) what();
}

}  // namespace krg
