// SpreadProcess: its threads: their stops, signals, and where they run.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_process.h"

#include <fmt/format.h>
#include <sys/syscall.h>

#include <csignal>
#include <cstdlib>

#include "krg/runtime/log.h"
#include "process_status.h"

namespace krg {
namespace {

constexpr long kOptions =
    PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
constexpr std::chrono::milliseconds kSignalPeriod{50};

// A set of signals in /proc/TID/status.
uint64_t signal_set(const std::string& status, const char* key) {
  const char* value = status_value(status, key);
  return value ? strtoull(value, nullptr, 16) : 0;
}

bool has_handler(pid_t tid, int signal) {
  auto status = read_proc_text(tid, "status");
  return status && (signal_set(*status, "SigCgt") >> (signal - 1) & 1) != 0;
}

bool has_waiting_signal(pid_t tid) {
  auto status = read_proc_text(tid, "status");
  if (!status) return false;
  const uint64_t waiting = signal_set(*status, "SigPnd") | signal_set(*status, "ShdPnd");
  return (waiting & ~signal_set(*status, "SigBlk")) != 0;
}

}  // namespace

SpreadProcess::SpreadProcess(Parts parts, std::function<void()> ended)
    : parts_(std::move(parts)), ended_(std::move(ended)) {}

SpreadProcess::~SpreadProcess() = default;

void SpreadProcess::begin(const std::vector<pid_t>& tids) {
  for (pid_t tid : tids) add(tid, false);
  signals_timer_ = parts_.node.loop.every(kSignalPeriod, [this] { look_for_signals(); });
  for (const auto& [tid, thread] : std::map(threads_)) {
    if (!thread->traced->set_options(kOptions)) continue;  // its end is told
    const NodeId place = tid == parts_.pid ? parts_.node.self : choose_node();
    place == parts_.node.self ? resume(thread) : send_away(thread, place);
  }
}

void SpreadProcess::add(pid_t tid, bool is_new) {
  auto thread = std::make_shared<Thread>();
  thread->node = parts_.node.self;
  thread->is_new = is_new;
  threads_[tid] = thread;
  thread->traced = std::make_unique<TracedThread>(
      *parts_.node.children, tid, [this, weak = std::weak_ptr(thread)](const TraceStop& stop) {
        if (auto alive = weak.lock()) on_stop(alive, stop);
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
  if (stop.kind == Kind::kGone) return on_gone(thread->traced->tid());
  if (thread->late_extended_state) {
    static_cast<void>(thread->traced->set_extended_state(*thread->late_extended_state));
    thread->late_extended_state.reset();
  }
  switch (stop.kind) {
    case Kind::kGone:
      return;
    case Kind::kSystemCall:
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
  if (stop.signal != SIGTRAP) return thread->traced->resume(PTRACE_LISTEN);  // stopped by a signal
  if (!std::exchange(thread->is_new, false)) return resume(thread);
  const NodeId place = choose_node();
  place == parts_.node.self ? resume(thread) : send_away(thread, place);
}

void SpreadProcess::on_signal(const ThreadPtr& thread, int signal) {
  if (thread->is_exiting) return resume(thread);
  if (thread->node == parts_.node.self || !has_handler(thread->traced->tid(), signal))
    return resume(thread, signal);
  thread->stands = Stands::kAtSignal;
  thread->signal = signal;
  recall(thread);
}

void SpreadProcess::on_event(const ThreadPtr& thread, int event) {
  if (event == PTRACE_EVENT_EXEC) {
    thread->traced->detach();
    return end();
  }
  if (event == PTRACE_EVENT_CLONE) {
    const pid_t made = thread->traced->new_thread();
    auto status = read_process_status(made);
    // A process that shares its memory is let go by the ChildReaper.
    if (status && status->pid == parts_.pid) add(made, true);
  }
  resume(thread);
}

void SpreadProcess::on_gone(pid_t tid) {
  threads_.erase(tid);
  if (threads_.empty()) end();
}

void SpreadProcess::end() {
  if (std::exchange(has_ended_, true)) return;
  threads_.clear();
  signals_timer_.reset();
  parts_.node.loop.post([ended = ended_] { ended(); });
}

void SpreadProcess::resume(const ThreadPtr& thread, int signal) {
  thread->stands = Stands::kRunning;
  thread->traced->resume(PTRACE_SYSCALL, signal);
}

void SpreadProcess::fail(const std::string& why) {
  log_error("spread", "pid {} is killed: {}", parts_.pid, why);
  kill(parts_.pid, SIGKILL);
}

// A thread that stands in its stop is told nothing of signals.
void SpreadProcess::look_for_signals() {
  for (const auto& [tid, thread] : std::map(threads_))
    if (thread->stands == Stands::kParked && !thread->is_recalled && has_waiting_signal(tid))
      recall(thread);
}

// --- away and back ------------------------------------------------------------------------------

// Where the fewest of its threads run; other nodes before this one.
NodeId SpreadProcess::choose_node() const {
  std::map<NodeId, unsigned> threads;
  for (const auto& [tid, thread] : threads_)
    if (!thread->is_new) ++threads[thread->node];
  NodeId best = parts_.node.self;
  // The one that is being placed counts as one of here.
  unsigned fewest = threads[best] > 0 ? threads[best] - 1 : 0;
  for (NodeId node : parts_.nodes)
    if (threads[node] < fewest || (threads[node] == fewest && best == parts_.node.self)) {
      best = node;
      fewest = threads[node];
    }
  return best;
}

void SpreadProcess::send_away(const ThreadPtr& thread, NodeId node) {
  auto state = thread->traced->state();
  if (!state) return;  // its end is told
  if (is_remembered_by_kernel(state->registers)) return resume(thread);
  if (is_to_be_restarted(state->registers)) state->registers = before_the_call(state->registers);
  state->registers.orig_rax = ~0ULL;
  thread->stands = Stands::kParked;
  thread->node = node;
  SendThread ask;
  ask.set = set().value;
  ask.tid = thread->traced->tid();
  ask.pid = parts_.pid;
  parts_.node.messenger.request(node, ask, state->serialize(),
                                [this, alive = std::weak_ptr(alive_),
                                 weak = std::weak_ptr(thread)](Result<std::string> reply) {
                                  auto thread = weak.lock();
                                  if (alive.expired() || !thread || reply) return;
                                  log_warn("spread", "thread {} stays: {}", thread->traced->tid(),
                                           reply.error().message());
                                  thread->node = parts_.node.self;
                                  resume(thread);
                                });
}

void SpreadProcess::recall(const ThreadPtr& thread) {
  thread->is_recalled = true;
  RecallThread ask;
  ask.set = set().value;
  ask.tid = thread->traced->tid();
  static_cast<void>(parts_.node.messenger.send(thread->node, ask));
}

void SpreadProcess::returned(pid_t tid, ThreadState state) {
  auto found = threads_.find(tid);
  if (found == threads_.end()) return;
  const ThreadPtr thread = found->second;
  thread->node = parts_.node.self;
  thread->is_recalled = false;
  thread->call.reset();
  switch (thread->stands) {
    case Stands::kParked:
      static_cast<void>(thread->traced->set_registers(state.registers));
      static_cast<void>(thread->traced->set_extended_state(state.extended_state));
      return resume(thread);
    case Stands::kAtSignal:
      static_cast<void>(thread->traced->set_extended_state(state.extended_state));
      return resume(thread, thread->signal);
    case Stands::kRunning:  // in the call that it was recalled from
      thread->late_extended_state = std::move(state.extended_state);
      return thread->traced->interrupt();
  }
}

void SpreadProcess::call(pid_t tid, const user_regs_struct& registers, Messenger::Reply reply) {
  auto found = threads_.find(tid);
  if (found == threads_.end() || found->second->node == parts_.node.self) return;
  const ThreadPtr thread = found->second;
  log_trace("spread", "thread {}: call {} for it", tid, registers.orig_rax);
  thread->call = std::move(reply);
  if (thread->is_recalled) return;  // it is on its way
  if (!thread->traced->set_registers(before_the_call(registers))) return;
  resume(thread);
}

// --- replicas -----------------------------------------------------------------------------------

void SpreadProcess::tell_replicas(ChangeMemory change, std::function<void()> done) {
  change.set = set().value;
  change.set_pages = parts_.pages->pages();
  auto left = std::make_shared<size_t>(1);
  const auto answered = [left, done = std::move(done), alive = std::weak_ptr(alive_)] {
    if (--*left == 0 && !alive.expired()) done();
  };
  for (NodeId node : parts_.nodes) {
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

}  // namespace krg
