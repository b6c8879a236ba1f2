// SpreadProcess: processor time. Each node's kernel counts what was used there; home adds it up
// where somebody asks: the process itself, who reads /proc, and at its end its parent's kernel,
// which has only home's part.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>

#include "process_status.h"
#include "spread/cpu_limit.h"
#include "spread/spread_process.h"
#include "spread/usage_calls.h"

namespace krg {
namespace {

bool ends_by_default(int signal) {
  switch (signal) {
    case SIGCHLD:
    case SIGCONT:
    case SIGURG:
    case SIGWINCH:
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
      return false;
    default:
      return true;
  }
}

struct NodeUsage {
  FaultSum faults;
  std::vector<ThreadUsage> threads;
};

NodeUsage parse_usage(std::string_view answer) {
  NodeUsage usage;
  if (answer.size() < sizeof usage.faults) return usage;
  std::memcpy(&usage.faults, answer.data(), sizeof usage.faults);
  answer.remove_prefix(sizeof usage.faults);
  usage.threads.resize(answer.size() / sizeof(ThreadUsage));
  std::memcpy(usage.threads.data(), answer.data(), usage.threads.size() * sizeof(ThreadUsage));
  return usage;
}

}  // namespace

bool SpreadProcess::is_fatal(pid_t tid, int signal) {
  if (!ends_by_default(signal)) return false;
  auto status = read_proc_text(tid, "status");
  if (!status) return false;
  for (const char* key : {"SigCgt", "SigIgn"})
    if (const char* set = status_value(*status, key);
        set && strtoull(set, nullptr, 16) >> (signal - 1) & 1)
      return false;
  return true;
}

// What it used at `node` before it came from there.
void SpreadProcess::visited(NodeId node, pid_t tid, const CpuTime& used) {
  visits_[node] += used;
  if (auto found = threads_.find(tid); found != threads_.end()) found->second->visits[node] += used;
}

// What came home before the node's answer and what is still there by then are apart: its messages
// come in their order.
void SpreadProcess::add_usage_of(NodeId node, std::string_view answer, Usage& sum) const {
  if (auto before = visits_.find(node); before != visits_.end()) sum.process += before->second;
  for (const auto& [tid, thread] : threads_)
    if (auto visit = thread->visits.find(node); visit != thread->visits.end())
      sum.threads[tid].used += visit->second;
  const NodeUsage told = parse_usage(answer);
  sum.faults += told.faults;
  for (const ThreadUsage& one : told.threads) {
    sum.process += one.used;
    if (one.tid == 0) continue;
    sum.threads[one.tid].used += one.used;
    sum.threads[one.tid].state = one.state;
  }
}

void SpreadProcess::usage(std::function<void(const Usage&)> done, std::optional<NodeId> only) {
  auto sum = std::make_shared<Usage>();
  auto left = std::make_shared<size_t>(parts_.nodes.size() + 1);
  const auto answered = [left, sum, done = std::move(done)] {
    if (--*left == 0) done(*sum);
  };
  TellUsage ask;
  ask.set = set().value;
  for (NodeId node : parts_.nodes) {
    if (only && *only != node) {
      add_usage_of(node, {}, *sum);
      answered();
      continue;
    }
    parts_.node.messenger.request(
        node, ask, {},
        [this, node, sum, answered, alive = std::weak_ptr(alive_)](Result<std::string> reply) {
          if (!alive.expired()) add_usage_of(node, reply ? *reply : std::string_view{}, *sum);
          answered();
        });
  }
  answered();
}

// --- for the process itself ---

// Stands behind a call that the kernel has answered.
void SpreadProcess::add_usage(const ThreadPtr& thread, uint64_t result) {
  auto call = usage_call(thread->entry);
  if (!call) return finish(thread);
  if (!call->of_children) return add_own_usage(thread, *call);
  if (thread->number == SYS_waitid) return add_waited_usage(thread, *call);
  const bool waits = thread->number == SYS_wait4;
  if (waits && result == 0) return finish(thread);  // for nobody
  const pid_t child = waits ? static_cast<pid_t>(result) : 0;
  add_to_answer(thread, *call, {{}, parts_.of_children(parts_.pid, child)});
}

void SpreadProcess::add_waited_usage(const ThreadPtr& thread, const UsageCall& call) {
  read_memory(call.info, sizeof(siginfo_t),
              [this, thread, call, alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
                if (alive.expired() || thread->is_gone) return;
                siginfo_t info{};
                if (read && read->size() == sizeof info)
                  std::memcpy(&info, read->data(), sizeof info);
                if (info.si_pid == 0) return finish(thread);  // for nobody
                add_to_answer(thread, call, {{}, parts_.of_children(parts_.pid, info.si_pid)});
              });
}

void SpreadProcess::add_own_usage(const ThreadPtr& thread, const UsageCall& call) {
  pid_t tid = call.pid != 0 ? call.pid : thread->traced->tid();
  if (!call.of_thread) tid = parts_.pid;
  const auto asked = threads_.find(tid);
  const bool is_known =
      call.of_thread ? asked != threads_.end() : call.pid == 0 || call.pid == parts_.pid;
  if (!is_known) return finish(thread);  // another process's clock
  std::optional<NodeId> only;
  if (call.of_thread) only = asked->second->node;
  usage(
      [this, thread, call, tid, alive = std::weak_ptr(alive_)](const Usage& all) {
        if (alive.expired() || thread->is_gone) return;
        MoreUsage more{all.process, {}};
        if (call.of_thread) {
          const auto found = all.threads.find(tid);
          more.own = found != all.threads.end() ? found->second.used : CpuTime();
        }
        if (thread->number == SYS_times) more.children = parts_.of_children(parts_.pid, 0);
        add_to_answer(thread, call, more);
      },
      only);
}

void SpreadProcess::add_to_answer(const ThreadPtr& thread, const UsageCall& call,
                                  const MoreUsage& more) {
  if (more == MoreUsage()) return finish(thread);
  read_memory(
      call.answer, call.bytes,
      [this, thread, call, more, alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
        if (alive.expired() || thread->is_gone) return;
        if (!read) return finish(thread);
        write_memory(call.answer, with_more(call, *read, more, sysconf(_SC_CLK_TCK)),
                     [this, thread, alive] {
                       if (!alive.expired() && !thread->is_gone) finish(thread);
                     });
      });
}

// --- for its parent ---

// What its parent has not been charged for yet; `then` runs while the process still stands.
void SpreadProcess::charge_parent(const ThreadPtr& thread, std::function<void()> then) {
  usage([this, thread, then = std::move(then), alive = std::weak_ptr(alive_)](const Usage& all) {
    if (alive.expired() || thread->is_gone) return;
    CpuTime more = all.process;
    more.user_ns -= charged_.user_ns;
    more.system_ns -= charged_.system_ns;
    if (more.user_ns > 0 || more.system_ns > 0) parts_.charge(parts_.pid, more);
    charged_ = all.process;
    then();
  });
}

// Another program, whose only thread this is, whichever it was before: nothing that is under way is
// for it. It is let go when what its predecessor used is told.
void SpreadProcess::on_exec(const ThreadPtr& thread) {
  alive_ = std::make_shared<bool>(true);
  thread->traced->give_up();
  auto more = std::make_shared<CpuTime>(CpuTime{-charged_.user_ns, -charged_.system_ns});
  for (const auto& [node, used] : visits_) *more += used;
  auto left = std::make_shared<size_t>(parts_.nodes.size() + 1);
  const auto answered = [left, more, pid = parts_.pid, charge = parts_.charge] {
    if (--*left > 0) return;
    if (more->user_ns > 0 || more->system_ns > 0) charge(pid, *more);
    ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
  };
  TellUsage ask;
  ask.set = set().value;
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(node, ask, {}, [more, answered](Result<std::string> reply) {
      const NodeUsage told = parse_usage(reply ? *reply : std::string_view{});
      for (const ThreadUsage& one : told.threads) *more += one.used;
      answered();
    });
  answered();
  end();
}

// --- limits ---

// What its threads use elsewhere counts for RLIMIT_CPU too.
void SpreadProcess::look_at_limit() {
  rlimit limit{};
  if (prlimit(parts_.pid, RLIMIT_CPU, nullptr, &limit) != 0 || !is_cpu_limited(limit) ||
      is_standing() || fork_ || inspection_ || is_stopped_)
    return;
  usage([this, limit, alive = std::weak_ptr(alive_)](const Usage& elsewhere) {
    if (alive.expired() || has_ended_) return;
    const std::chrono::nanoseconds used(used_here().total_ns() + elsewhere.process.total_ns());
    switch (cpu_limit_action(limit, used)) {
      case CpuLimitAction::kNone:
        return;
      case CpuLimitAction::kWarn: {
        const rlimit next = next_cpu_limit(limit);
        prlimit(parts_.pid, RLIMIT_CPU, &next, nullptr);
        kill(parts_.pid, SIGXCPU);
        return;
      }
      case CpuLimitAction::kKill:
        kill(parts_.pid, SIGKILL);
        return;
    }
  });
}

bool SpreadProcess::is_last(const ThreadPtr& thread) const {
  for (const auto& [tid, other] : threads_)
    if (other != thread && !other->is_exiting) return false;
  return true;
}

}  // namespace krg
