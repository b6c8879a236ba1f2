// SpreadProcess: its threads: their stops, signals, and where they run.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_process.h"

#include <fmt/format.h>
#include <sys/syscall.h>

#include <csignal>
#include <cstdlib>

#include "call_registers.h"
#include "krg/runtime/log.h"
#include "krg/runtime/short_turns.h"
#include "process_status.h"
#include "spread/gathering.h"
#include "spread/spread_again.h"
#include "spread/team_registers.h"

namespace krg {
namespace {

constexpr std::chrono::milliseconds kSignalPeriod{50}, kLimitPeriod{1000};
// Threads whose waiting signals are read each time, a matter of some 15 us; of the others only the
// kernel's queue is looked at, which lacks signals that had no room in it.
constexpr size_t kReadEachTime = 16;
// So many threads are looked at each time; where there are more all are, so many times less often.
constexpr size_t kLookedAtEachTime = 1024;

// A set of signals in /proc/TID/status.
uint64_t signal_set(const std::string& status, const char* key) {
  const char* value = status_value(status, key);
  return value ? strtoull(value, nullptr, 16) : 0;
}

bool has_handler(pid_t tid, int signal) {
  auto status = read_proc_text(tid, "status");
  return status && (signal_set(*status, "SigCgt") >> (signal - 1) & 1) != 0;
}

// That mean something to it.
struct WaitingSignals {
  bool own, of_process;
};
// Of the process, blocked or not.
bool has_waiting_signals(pid_t pid) {
  auto status = read_proc_text(pid, "status");
  return status && signal_set(*status, "ShdPnd") != 0;
}
WaitingSignals waiting_signals(pid_t tid) {
  auto status = read_proc_text(tid, "status");
  if (!status) return {};
  constexpr auto bit = [](int signal) { return uint64_t{1} << (signal - 1); };
  constexpr uint64_t kUsuallyIgnored = bit(SIGCHLD) | bit(SIGURG) | bit(SIGWINCH);
  const uint64_t ignored =
      signal_set(*status, "SigIgn") | (kUsuallyIgnored & ~signal_set(*status, "SigCgt"));
  const uint64_t open = ~signal_set(*status, "SigBlk") & ~ignored;
  return {(signal_set(*status, "SigPnd") & open) != 0, (signal_set(*status, "ShdPnd") & open) != 0};
}

}  // namespace

SpreadProcess::SpreadProcess(Parts parts, std::function<void()> ended)
    : parts_(std::move(parts)), ended_(std::move(ended)) {
  watch_faults();
  if (parts_.multiple_writers) allow_multiple_writers();
  if (parts_.on_gathered && !parts_.nodes.empty()) begin_gathering();
  teams_.on_last_node([this](const TeamServer::LastNode& last) { return let_last_go(last); });
  teams_.on_first_task([this](uint64_t team) { tell_of_tasks(team); });
}

SpreadProcess::~SpreadProcess() = default;

Status SpreadProcess::begin(const std::vector<pid_t>& tids, const SpreadAgain* again) {
  std::map<pid_t, NodeId> places;
  if (again) {
    if (auto known = again->teams.empty() ? Status() : teams_.restore(again->teams); !known)
      return known;
    places = places_again(tids, *again);
  }
  for (NodeId node : parts_.nodes) {
    for (const SpreadRange& range : parts_.memory.all()) known_[node].map(range);
    for (const SpreadRange& range : parts_.constants) known_[node].map(range);
  }
  for (pid_t tid : tids) add(tid, false);
  // Where a thread goes to a node without any of its processors, it is not bound any more.
  const auto bind_again = [this](const ThreadPtr& thread, const ProcessorSet& wanted) {
    parts_.processors->divide(wanted, [this, thread, wanted, alive = std::weak_ptr(alive_)](
                                          const SpreadProcessors::Parts& parts) {
      const auto own = alive.expired() ? parts.end() : parts.find(thread->node);
      if (own == parts.end() || thread->is_gone) return;
      thread->affinity = wanted;
      stop_gathering();
      if (thread->node != parts_.node.self) return bind_elsewhere(thread);
      bind_thread(thread->traced->tid(), parts_.processors->own_numbers(own->second));
    });
  };
  signals_timer_ = parts_.node.loop.every(kSignalPeriod, [this, due = size_t{0}]() mutable {
    due += kLookedAtEachTime;
    if (due < threads_.size()) return;
    due = 0;
    look_for_signals();
  });
  limit_timer_ = parts_.node.loop.every(kLimitPeriod, [this] { look_at_limit(); });
  used_ = used_here();
  for (int which : {ITIMER_VIRTUAL, ITIMER_PROF})
    cpu_timers_.set(which, parts_.interval_timers[static_cast<size_t>(which)], used_);
  await_timers();
  for (const auto& [tid, thread] : std::map(threads_)) {
    if (!thread->traced->set_options(kTraceOptions)) continue;  // its end is told
    if (auto registers = thread->traced->registers())
      thread->waits_natively =
          is_remembered_by_kernel(*registers) && registers->orig_rax == SYS_futex;
    const auto known = places.find(tid);
    if (known != places.end()) teams_.runs_on(tid, known->second);
    const bool is_bound = !again && has_bound_itself(tid);
    if (is_bound) note_binding(thread);
    const bool stays = tid == parts_.pid || again || is_bound;
    place(thread, known != places.end() ? known->second : stays ? parts_.node.self : choose_node());
    if (again && parts_.processors)
      if (const auto bound = again->bounds.find(tid); bound != again->bounds.end())
        bind_again(thread, bound->second);
  }
  return {};
}

void SpreadProcess::place(const ThreadPtr& thread, NodeId node) {
  node == parts_.node.self ? resume(thread) : send_away(thread, node);
}

SpreadProcess::ThreadPtr SpreadProcess::add(pid_t tid, bool is_new) {
  auto thread = std::make_shared<Thread>();
  thread->node = parts_.node.self;
  thread->is_new = is_new;
  if (!is_new) ++threads_on_[thread->node];
  thread->slot = next_slot_++;
  threads_[tid] = thread;
  thread->traced = traced(tid, thread);
  if (fork_ || is_held() || capture_) thread->traced->hold([] {});
  return thread;
}

std::unique_ptr<TracedThread> SpreadProcess::traced(pid_t tid, const ThreadPtr& thread) {
  return std::make_unique<TracedThread>(
      *parts_.node.children, tid,
      [this, alive = std::weak_ptr(alive_), weak = std::weak_ptr(thread)](const TraceStop& stop) {
        auto known = weak.lock();  // what it waits for may hold it longer than this
        if (known && !alive.expired()) on_stop(known, stop);
      });
}

std::optional<NodeId> SpreadProcess::place_of(pid_t tid) const {
  auto found = threads_.find(tid);
  if (found == threads_.end()) return std::nullopt;
  return found->second->node;
}

std::vector<pid_t> SpreadProcess::threads() const {
  std::vector<pid_t> tids;
  for (const auto& [tid, thread] : threads_) tids.push_back(tid);
  return tids;
}

// --- stops --------------------------------------------------------------------------------------

void SpreadProcess::on_stop(const ThreadPtr& thread, const TraceStop& stop) {
  using Kind = TraceStop::Kind;
  log_trace("spread", "thread {}: stop {} signal {} event {}", thread->traced->tid(),
            static_cast<int>(stop.kind), stop.signal, stop.event);
  ++stops_;
  signs_->stops(thread->traced->tid());
  if (stop.kind == Kind::kGone) return on_gone(thread->traced->tid());
  if (stop.kind == Kind::kSystemCall) thread->waits_natively = false;
  if (thread->returned && thread->is_in_call && stop.kind == Kind::kSystemCall)
    stay_in_call(thread);
  switch (stop.kind) {
    case Kind::kGone:
      return;
    case Kind::kSystemCall:
      if (thread->stands == Stands::kArming) return on_armed(thread);
      if (thread->stands == Stands::kDisarming) return arm(thread);
      if (thread->stands == Stands::kLeaving) {
        step_here(thread);
        return stand_for_move(thread);
      }
      if (thread->traced->was_emulated()) return on_emulated_entry(thread);
      return thread->traced->is_at_entry() ? on_entry(thread) : on_exit(thread);
    case Kind::kTrap:
      return on_trap(thread, stop);
    case Kind::kSignal:
      return on_signal(thread, stop.signal);
    case Kind::kEvent:
      return on_event(thread, stop.event);
  }
}

void SpreadProcess::on_trap(const ThreadPtr& thread, const TraceStop& stop) {
  if (stop.signal != SIGTRAP) {
    thread->traced->resume(PTRACE_LISTEN);
    return begin_stop();
  }
  end_stop();
  if (!thread->is_new)
    return thread->move ? stand_for_move(thread) : thread->traced->resume(PTRACE_SYSCALL);
  thread->is_new = false;
  ++threads_on_[thread->node];
  name_stack(thread);
  place(thread, choose_node());
}

void SpreadProcess::on_signal(const ThreadPtr& thread, int signal) {
  TracedThread& traced = *thread->traced;
  if (thread->is_exiting) return traced.resume(PTRACE_SYSCALL);
  if (signal == SIGTRAP && takes_trap(thread)) return;
  if (is_fatal(traced.tid(), signal))
    return charge_parent(thread,
                         [thread, signal] { thread->traced->resume(PTRACE_SYSCALL, signal); });
  if (thread->node == parts_.node.self || !has_handler(traced.tid(), signal))
    return traced.resume(PTRACE_SYSCALL, signal);
  thread->stands = Stands::kAtSignal;
  thread->signal = signal;
  if (thread->returned) return leave(thread);
  if (!thread->is_recalled) recall(thread);
}

void SpreadProcess::on_event(const ThreadPtr& thread, int event) {
  if (event == PTRACE_EVENT_EXEC) return on_exec(thread);
  if (event == PTRACE_EVENT_CLONE) {
    const pid_t made = thread->traced->new_task();
    auto status = read_process_status(made);
    // A process that shares its memory is let go by the ChildReaper.
    if (status && status->pid == parts_.pid) add(made, true)->tid_address = thread->new_tid_address;
  }
  resume(thread);
}

void SpreadProcess::on_gone(pid_t tid) {
  auto thread = threads_.extract(tid);
  if (!thread.empty()) {
    thread.mapped()->is_gone = true;
    if (!thread.mapped()->is_new) --threads_on_[thread.mapped()->node];
    if (tid == parts_.pid) end_status_ = thread.mapped()->traced->end_status();
    if (fork_ && fork_->thread == thread.mapped()) end_fork();
    end_move(thread.mapped(), errno_error("it has ended", ESRCH));
    if (auto borrower = std::exchange(thread.mapped()->borrower, nullptr))
      borrower(errno_error("it has ended", ESRCH));
    futexes_.leave(ticket_of(tid, thread.mapped()->node));
    futexes_.leave(ticket_of(tid, parts_.node.self));
  }
  teams_.gone(tid);
  if (!thread.empty()) end_change(thread.mapped());
  if (threads_.empty()) end();
}

void SpreadProcess::end() {
  if (std::exchange(has_ended_, true)) return;
  give_up_capture(errno_error("it has ended", ESRCH));
  end_fork();
  trapped(0, false);
  threads_.clear();
  changer_.reset();
  changers_.clear();
  signals_timer_.reset();
  limit_timer_.reset();
  cpu_timers_look_.reset();
  stop_gathering();
  parts_.node.loop.post([ended = ended_] { ended(); });
}

void SpreadProcess::resume(const ThreadPtr& thread, int signal) {
  thread->stands = Stands::kRunning;
  if (is_stopped_ || (thread->move && thread->node == parts_.node.self))
    thread->traced->interrupt();
  thread->traced->resume(PTRACE_SYSCALL, signal);
}

// To the kernel's door. A signal that waits for it comes up on the way.
void SpreadProcess::arm(const ThreadPtr& thread) {
  auto registers = thread->traced->registers();
  if (!registers) return;  // its end is told
  thread->stands = Stands::kArming;
  if (!thread->traced->set_registers(
          call_registers(*registers, parts_.instruction.value, SYS_getpid, {})))
    return;
  if (is_stopped_) thread->traced->interrupt();
  thread->traced->resume(PTRACE_SYSCALL);
}

void SpreadProcess::on_armed(const ThreadPtr& thread) {
  thread->stands = Stands::kArmed;
  if (thread->returned) return leave(thread);
  if (thread->call && !thread->is_recalled) return begin_call(thread, thread->called);
  if (is_to_move(thread)) go_on_move(thread);
}

void SpreadProcess::fail(const std::string& why) {
  log_error("spread", "pid {} is killed: {}", parts_.pid, why);
  kill(parts_.pid, SIGKILL);
}

// A thread that stands in its stop is told nothing of signals.
void SpreadProcess::look_for_signals() {
  if (is_standing()) return;
  if (is_stopped_)
    for (const auto& [tid, thread] : std::map(threads_)) stop_standing(tid, thread);
  std::vector<std::pair<pid_t, ThreadPtr>> told_nothing;
  for (const auto& [tid, thread] : threads_) {
    const bool stands = thread->stands == Stands::kArmed || thread->stands == Stands::kInTeamCall;
    if (stands && !thread->is_recalled) told_nothing.emplace_back(tid, thread);
  }
  const bool are_few = told_nothing.size() <= kReadEachTime;
  // Of what is sent to the process, one thread that is open to it is told.
  bool has_taker = !are_few && !has_waiting_signals(parts_.pid);
  for (size_t i = 0; i < told_nothing.size(); ++i) {
    const auto& [tid, thread] = told_nothing[i];
    const bool is_its_turn =
        are_few || (i + told_nothing.size() - signals_turn_) % told_nothing.size() < kReadEachTime;
    if (has_taker && !is_its_turn && !thread->traced->may_have_own_signals()) continue;
    const WaitingSignals waiting = waiting_signals(tid);
    if (!waiting.own && (!waiting.of_process || std::exchange(has_taker, true))) continue;
    thread->stands == Stands::kInTeamCall ? teams_.interrupt(tid) : recall(thread);
  }
  signals_turn_ = are_few ? 0 : (signals_turn_ + kReadEachTime) % told_nothing.size();
}

// --- away and back ------------------------------------------------------------------------------

// Where the fewest of its threads run; other nodes before this one.
NodeId SpreadProcess::choose_node() const {
  if (gathering_ && gathering_->is_gathered()) return parts_.node.self;
  const auto count = [this](NodeId node) {
    const auto found = threads_on_.find(node);
    return found == threads_on_.end() ? 0 : found->second;
  };
  NodeId best = parts_.node.self;
  // The one that is being placed counts as one of here.
  unsigned fewest = count(best) > 0 ? count(best) - 1 : 0;
  for (NodeId node : parts_.nodes)
    if (count(node) < fewest || (count(node) == fewest && best == parts_.node.self)) {
      best = node;
      fewest = count(node);
    }
  return best;
}

void SpreadProcess::runs_on(const ThreadPtr& thread, NodeId node) {
  if (thread->is_new) return static_cast<void>(thread->node = node);
  --threads_on_[thread->node];
  thread->node = node;
  ++threads_on_[node];
}

void SpreadProcess::send_away(const ThreadPtr& thread, NodeId node) {
  auto state = thread->traced->state();
  if (!state) return;  // its end is told
  if (is_remembered_by_kernel(state->registers)) {
    end_move(thread, errno_error("it is in a call with a time limit", ENOTSUP));
    return resume(thread);
  }
  if (is_to_be_restarted(state->registers)) state->registers = before_the_call(state->registers);
  state->registers.orig_rax = ~0ULL;
  runs_on(thread, node);
  for (uint64_t used : {state->registers.rsp, state->registers.fs_base})
    if (auto range = parts_.memory.find(RemoteAddr{used})) introduce(node, *range);
  SendThread ask;
  ask.set = set().value;
  ask.tid = thread->traced->tid();
  ask.pid = parts_.pid;
  parts_.pages->publish(node);
  parts_.node.messenger.request(node, ask, state->serialize(),
                                [this, state = *state, alive = std::weak_ptr(alive_),
                                 weak = std::weak_ptr(thread)](Result<std::string> reply) {
                                  auto thread = weak.lock();
                                  if (alive.expired() || !thread) return;
                                  if (reply && thread->affinity) bind_elsewhere(thread);
                                  end_move(thread, reply ? Status() : Status(reply.error()));
                                  if (reply) return;
                                  log_warn("spread", "thread {} stays: {}", thread->traced->tid(),
                                           reply.error().message());
                                  returned(thread->traced->tid(), state);
                                });
  arm(thread);
}

void SpreadProcess::recall(const ThreadPtr& thread) {
  thread->is_recalled = true;
  RecallThread ask;
  ask.set = set().value;
  ask.tid = thread->traced->tid();
  static_cast<void>(parts_.node.messenger.send(thread->node, ask));
}

void SpreadProcess::returned(pid_t tid, ThreadState state) {
  if (is_put_off([this, tid, state] { returned(tid, state); })) return;
  auto found = threads_.find(tid);
  if (found == threads_.end()) return;
  const ThreadPtr thread = found->second;
  thread->call.reset();
  thread->returned = std::move(state);
  if (inspection_ && inspection_->goes_on && inspection_->alone && inspection_->stepping == tid)
    thread->traced->release();
  if (thread->stands == Stands::kArmed || thread->stands == Stands::kAtSignal) return leave(thread);
  if (thread->stands == Stands::kBehindCall) {
    stay_in_call(thread);
    return stand_for_move(thread);
  }
  if (thread->is_in_call) thread->traced->interrupt();
}

// It runs here from now on, with the registers that it had elsewhere; in the middle of a call that
// it made for itself, with those that it has here.
void SpreadProcess::leave(const ThreadPtr& thread) {
  const ThreadState state = std::move(*thread->returned);
  thread->returned.reset();
  runs_on(thread, parts_.node.self);
  thread->is_recalled = false;
  if (!std::exchange(thread->is_in_call, false))
    static_cast<void>(thread->traced->set_registers(state.registers));
  static_cast<void>(thread->traced->set_extended_state(state.extended_state));
  if (thread->stands == Stands::kAtSignal) {
    step_here(thread);
    resume(thread, thread->signal);
    if (thread->move) go_on_move(thread);
    return;
  }
  // The call at whose door it stands is none any more; the stop after it comes all the same.
  thread->stands = Stands::kLeaving;
  thread->traced->resume(PTRACE_SYSCALL);
}

void SpreadProcess::call(const CallAtHome& ask, const user_regs_struct& registers,
                         Messenger::Reply reply) {
  if (is_standing()) {
    auto shared = std::make_shared<Messenger::Reply>(std::move(reply));
    is_put_off([this, ask, registers, shared] { call(ask, registers, std::move(*shared)); });
    return;
  }
  auto found = threads_.find(ask.tid);
  if (found == threads_.end() || found->second->node == parts_.node.self) return;
  const ThreadPtr thread = found->second;
  log_trace("spread", "thread {}: call {} for it", ask.tid, registers.orig_rax);
  if (is_team_call(registers)) return answer_team_call(thread, registers, std::move(reply));
  thread->call = std::move(reply);
  thread->called = registers;
  if (ask.goes_on) thread->is_recalled = false;
  if (thread->is_recalled) return;  // it is on its way
  if (thread->stands == Stands::kArmed) begin_call(thread, registers);
}

// It stands at the kernel's door: its own call takes the place of the one that it came with.
void SpreadProcess::begin_call(const ThreadPtr& thread, const user_regs_struct& registers) {
  if (!thread->traced->set_registers(registers)) return;
  thread->is_in_call = true;
  thread->stands = Stands::kRunning;
  on_entry(thread);
  if (is_to_move(thread) && !thread->is_recalled) go_on_move(thread);
}

// --- replicas -----------------------------------------------------------------------------------

void SpreadProcess::tell_replicas(const ChangeMemory& change, std::function<void()> done) {
  const RemoteAddr start{change.start};
  auto left = std::make_shared<size_t>(1);
  const auto answered = [left, done = std::move(done), alive = std::weak_ptr(alive_)] {
    if (--*left == 0 && !alive.expired()) done();
  };
  for (NodeId node : parts_.nodes) {
    SpreadMemory& known = known_[node];
    if (known.in(start, change.bytes).empty()) continue;
    if (change.kind == ChangeMemory::Kind::kUnmap) known.unmap(start, change.bytes);
    ++*left;
    parts_.node.messenger.request(
        node, change, {},
        [this, node, answered, alive = std::weak_ptr(alive_)](Result<std::string> reply) {
          if (!alive.expired() && !reply)
            fail(fmt::format("node {}: {}", node.value, reply.error().message()));
          answered();
        });
  }
  answered();
}

// Of what a thread there is about to need.
void SpreadProcess::introduce(NodeId node, const SpreadRange& range) {
  SpreadMemory& known = known_[node];
  if (!known.in(range.start, range.bytes).empty()) return;
  known.map(range);
  ChangeMemory change;
  change.kind = ChangeMemory::Kind::kMap;
  change.set = set().value;
  change.set_pages = parts_.pages->pages();
  change.start = range.start.value;
  change.bytes = range.bytes;
  change.protection = range.protection;
  change.first_page = range.first.value;
  parts_.node.messenger.request(node, change, {}, [](const Result<std::string>&) {});
}

KnownMapping SpreadProcess::mapping_at(NodeId asker, RemoteAddr address) {
  KnownMapping found;
  if (auto range = parts_.memory.find(address)) {
    found.kind = KnownMapping::Kind::kPages;
    found.range = *range;
    found.set_pages = parts_.pages->pages();
  } else if (const KnownMapping* file = file_with_breakpoints(address)) {
    found = *file;
  } else {
    found = KnownMapping::of_file(parts_.pid, address);
  }
  found.scratch = parts_.scratch.address_of(0);
  if (found.kind == KnownMapping::Kind::kNothing) return found;
  SpreadMemory& known = known_[asker];
  known.unmap(found.range.start, found.range.bytes);
  known.map(found.range);
  return found;
}

}  // namespace krg
