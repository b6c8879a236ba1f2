// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/cluster_view.h"

#include <sched.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>
#include <vector>

#include "ipc/waiting_calls.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "pid_call_table.h"
#include "process_status.h"
#include "process_threads.h"
#include "processor_numbers.h"
#include "seized_thread.h"
#include "stand_in.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

// sysinfo's figures may be so old; a node's processors stay what they are.
constexpr std::chrono::milliseconds kMaxAge{1000};
constexpr std::chrono::hours kProcessorsMaxAge{24};
// Till it may be known whether a process is a spread one.
constexpr std::chrono::milliseconds kPutOff{1};
constexpr size_t kWord = sizeof(unsigned long);  // masks are counted in words

struct sysinfo to_sysinfo(const NodeFigures& sum) {
  struct sysinfo info {};
  info.uptime = static_cast<long>(sum.uptime_s);
  const double loads[] = {sum.load_1min, sum.load_5min, sum.load_15min};
  for (int i = 0; i < 3; ++i)
    info.loads[i] = static_cast<unsigned long>(std::lround(loads[i] * (1 << SI_LOAD_SHIFT)));
  info.totalram = sum.memory_bytes;
  info.freeram = sum.free_bytes;
  info.sharedram = sum.shared_bytes;
  info.bufferram = sum.buffer_bytes;
  info.totalswap = sum.swap_bytes;
  info.freeswap = sum.free_swap_bytes;
  info.procs = static_cast<unsigned short>(std::min<uint32_t>(sum.processes, UINT16_MAX));
  info.mem_unit = 1;
  return info;
}

// The node that has the first of these processors; kNoNode: none has.
NodeId node_of(const ProcessorSet& wanted, const std::vector<NodeReport>& reports) {
  unsigned end = 0;
  for (const NodeReport& report : reports)
    if (const auto first = wanted.lower_bound(std::exchange(end, end + report.figures.processors));
        first != wanted.end() && *first < end)
      return report.node;
  return kNoNode;
}

}  // namespace

struct ClusterView::Impl {
  void get_affinity(Call call);
  void set_affinity(Call call);
  bool is_being_spread(pid_t tid) const;
  void put_off(Call call);
  void ask_again();
  void tell_affinity(Call call, const ProcessorSet& told);
  void restrict_to(Call call, const ProcessorSet& wanted);
  void move_there(Call call, const ProcessorSet& wanted);
  void move_caller(Call call, const ProcessorSet& wanted);
  void move_to(pid_t pid, const ProcessorSet& wanted, std::function<void(bool)> done);
  void tell_sysinfo(Call call);

  // True when the cluster's view is not for this caller.
  bool is_native(const Call& call) const {
    return node.node_count == 1 || sees_node_only(call.tid());
  }
  bool is_elsewhere(pid_t pid) const {
    return pid > 0 &&
           (table.find_shadow(pid) || (!table.is_at_home(GlobalPid{pid}) && !table.find_body(pid)));
  }
  ProcessorNumbers numbers() const {
    return {resources.own_processors(), resources.first_processor(), resources.total_processors()};
  }

  // Of a mask of the cluster's processors.
  size_t mask_bytes() const { return (numbers().total + 8 * kWord - 1) / (8 * kWord) * kWord; }

  NodeContext& node;
  ProcessTable& table;
  PidCalls& pid_calls;
  NodeResources& resources;
  std::function<bool(pid_t)> sees_node_only;
  Spread spread = {};
  Move move = {};
  std::vector<Call> calls_put_off = {};
  std::set<pid_t> moving = {};  // callers that are on their way to the processors they asked for
  EventLoop::Timer timer = {};
};

void ClusterView::Impl::get_affinity(Call call) {
  const auto named = static_cast<pid_t>(call.arg(0));
  if (is_elsewhere(named)) return pid_calls.forward(std::move(call));
  const size_t room = static_cast<uint32_t>(call.arg(1));
  if (is_native(call) || named < 0 || room % kWord != 0) return call.go_on();
  std::string mask(kMaxCallBuffer, '\0');
  const long got =
      syscall(SYS_sched_getaffinity, named == 0 ? call.tid() : named, mask.size(), mask.data());
  if (got < 0) return call.go_on();
  mask.resize(static_cast<size_t>(got));
  auto waiting = std::make_shared<Call>(std::move(call));
  resources.get(kProcessorsMaxAge, [this, waiting, allowed = set_of_mask(mask)](const auto&) {
    const auto named = static_cast<pid_t>(waiting->arg(0));
    const auto bound =
        spread.bound ? spread.bound(named == 0 ? waiting->tid() : named) : std::nullopt;
    tell_affinity(std::move(*waiting), bound ? *bound : to_cluster(allowed, numbers()));
  });
}

void ClusterView::Impl::tell_affinity(Call call, const ProcessorSet& told) {
  const size_t room = static_cast<uint32_t>(call.arg(1));
  const size_t needed = mask_bytes();
  if (room < needed) return call.fail(EINVAL);
  const std::string mask = mask_of_set(told, needed);
  if (!call.write_memory(RemoteAddr{call.arg(2)}, mask)) return call.fail(EFAULT);
  call.succeed(static_cast<int64_t>(needed));
}

void ClusterView::Impl::set_affinity(Call call) {
  const auto named = static_cast<pid_t>(call.arg(0));
  if (is_elsewhere(named)) return pid_calls.forward(std::move(call));
  if (is_native(call) || named < 0) return call.go_on();
  if (is_being_spread(call.tid())) return put_off(std::move(call));
  const size_t bytes = std::min<size_t>(static_cast<uint32_t>(call.arg(1)), kMaxCallBuffer);
  auto mask = call.read_memory(RemoteAddr{call.arg(2)}, bytes);
  if (!mask) return call.fail(EFAULT);
  auto waiting = std::make_shared<Call>(std::move(call));
  resources.get(kProcessorsMaxAge, [this, waiting, wanted = set_of_mask(*mask)](const auto&) {
    restrict_to(std::move(*waiting), wanted);
  });
}

bool ClusterView::Impl::is_being_spread(pid_t tid) const {
  if (!spread.is_starting) return false;
  const auto thread = read_process_status(tid);
  return thread && spread.is_starting(thread->pid);
}

// A thread may bind itself while its process is not yet on the nodes that it asks for: it makes the
// call again, which SpreadProcess takes by then.
void ClusterView::Impl::put_off(Call call) {
  calls_put_off.push_back(std::move(call));
  if (calls_put_off.size() == 1) timer = node.loop.after(kPutOff, [this] { ask_again(); });
}

void ClusterView::Impl::ask_again() {
  for (Call& call : std::exchange(calls_put_off, {})) {
    if (!call.is_valid()) continue;
    // Interrupted, it makes the call again; where it cannot be seized, who freezes it has done it.
    auto thread = SeizedThread::seize_and_interrupt(call.tid());
    call.fail(kRestartAlways);
    if (thread) thread->wait();
  }
}

void ClusterView::Impl::restrict_to(Call call, const ProcessorSet& wanted) {
  auto sender = read_sender(call.tid());
  if (!sender) return;  // the caller has died
  const auto here = to_node(wanted, numbers());
  if (!here) return move_there(std::move(call), wanted);
  const std::string own = mask_of_set(*here, kMaxCallBuffer);
  const auto named = static_cast<pid_t>(call.arg(0));
  const pid_t target = named == 0 ? call.tid() : named;
  auto result = call_as(*sender, RawCall{SYS_sched_setaffinity,
                                         {static_cast<uint64_t>(target), own.size(),
                                          reinterpret_cast<uint64_t>(own.data())}});
  if (!result || *result < 0) return call.fail(result ? static_cast<int>(-*result) : EAGAIN);
  call.succeed(0);
}

void ClusterView::Impl::move_there(Call call, const ProcessorSet& wanted) {
  const auto named = static_cast<pid_t>(call.arg(0));
  const pid_t target = named == 0 ? call.tid() : named;
  if (target == call.tid()) return move_caller(std::move(call), wanted);
  auto waiting = std::make_shared<Call>(std::move(call));
  move_to(target, wanted, [this, waiting](bool has_moved) {
    has_moved ? pid_calls.forward(std::move(*waiting)) : waiting->fail(EINVAL);
  });
}

// All of a process has to be meant: that is the one thread that it has.
void ClusterView::Impl::move_to(pid_t pid, const ProcessorSet& wanted,
                                std::function<void(bool)> done) {
  const NodeId there = node_of(wanted, resources.known());
  if (!move || there == kNoNode || there == node.self || threads_of(pid).size() != 1)
    return done(false);
  move(GlobalPid{pid}, there, [pid, done = std::move(done)](const Status& moved) {
    if (!moved) log_debug("cluster", "sched_setaffinity of {}: {}", pid, moved.error().message());
    done(moved.has_value());
  });
}

// It makes the call again till it is there: in a call that is still to be answered it would not
// stop to be moved.
void ClusterView::Impl::move_caller(Call call, const ProcessorSet& wanted) {
  const pid_t caller = call.tid();
  put_off(std::move(call));
  if (!moving.insert(caller).second) return;
  move_to(caller, wanted, [this, caller](bool has_moved) {
    moving.erase(caller);
    if (has_moved) return;
    std::erase_if(calls_put_off, [caller](Call& waiting) {
      if (!waiting.is_valid() || waiting.tid() != caller) return false;
      waiting.fail(EINVAL);
      return true;
    });
  });
}

void ClusterView::Impl::tell_sysinfo(Call call) {
  if (is_native(call)) return call.go_on();
  auto waiting = std::make_shared<Call>(std::move(call));
  resources.get(kMaxAge, [waiting](const std::vector<NodeReport>& reports) {
    const struct sysinfo info = to_sysinfo(sum_of(reports));
    if (!waiting->write_memory(RemoteAddr{waiting->arg(0)}, object_bytes(info)))
      return waiting->fail(EFAULT);
    waiting->succeed(0);
  });
}

ClusterView::ClusterView(NodeContext& node, SyscallBroker& broker, ProcessTable& table,
                         PidCalls& pid_calls, NodeResources& resources,
                         std::function<bool(pid_t)> sees_node_only)
    : impl_(new Impl{node, table, pid_calls, resources, std::move(sees_node_only)}) {
  pid_calls.set_masks(
      {.of_node = [impl = impl_.get()](const std::string& mask) -> std::optional<std::string> {
         auto here = to_node(set_of_mask(mask), impl->numbers());
         if (!here) return std::nullopt;
         return mask_of_set(*here, kMaxCallBuffer);
       },
       .of_cluster =
           [impl = impl_.get()](const std::string& mask) {
             const ProcessorSet told = to_cluster(set_of_mask(mask), impl->numbers());
             return mask_of_set(told, impl->mask_bytes());
           },
       .move = [impl = impl_.get()](
                   pid_t pid, const std::string& mask,
                   auto done) { impl->move_to(pid, set_of_mask(mask), std::move(done)); }});
  using Answer = void (Impl::*)(Call);
  constexpr std::pair<int, Answer> kAnswers[] = {{SYS_sched_getaffinity, &Impl::get_affinity},
                                                 {SYS_sched_setaffinity, &Impl::set_affinity},
                                                 {SYS_sysinfo, &Impl::tell_sysinfo}};
  for (auto [number, answer] : kAnswers)
    broker.set_handler(number, [impl = impl_.get(), answer = answer](Call call) {
      (impl->*answer)(std::move(call));
    });
}
ClusterView::~ClusterView() {
  impl_->pid_calls.set_masks({});
}

void ClusterView::set_spread(Spread spread) {
  impl_->spread = std::move(spread);
}

void ClusterView::set_move(Move move) {
  impl_->move = std::move(move);
}

}  // namespace krg
