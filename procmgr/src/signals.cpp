// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/signals.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "child_news.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"
#include "signal_rules.h"
#include "stand_in.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

// "Signal this group", to the node that has the truth about it.
struct GroupSignal {
  static constexpr uint16_t kId = message_ids::kSignals + 2;
  uint8_t version = 1;
  uint8_t of_shadow = 0;  // the group of the shadow `pid`, else the group `pid`
  uint8_t padding[2] = {};
  pid_t pid = 0;
  int32_t signal = 0;
  Sender sender;
};
static_assert(sizeof(GroupSignal) == 56);

// "Signal the kernel group that this body of yours leads."
struct BodyGroupSignal {
  static constexpr uint16_t kId = message_ids::kSignals + 3;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  pid_t body = 0;
  int32_t signal = 0;
};
static_assert(sizeof(BodyGroupSignal) == 12);

// "Signal everybody whom this sender may signal." Reply: an EverybodyCount.
struct EverybodySignal {
  static constexpr uint16_t kId = message_ids::kSignals + 4;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  int32_t signal = 0;
  Sender sender;
};
static_assert(sizeof(EverybodySignal) == 48);

struct EverybodyCount {
  uint32_t signalled = 0, denied = 0;
  // kill(2): success when at least one was signalled.
  int error() const { return signalled > 0 ? 0 : denied > 0 ? EPERM : ESRCH; }
};

// Processes that are born while everybody is signalled are found by looking again, so many times.
constexpr int kMaxRounds = 8;

RawCall raw_kill(pid_t pid, int signal) {
  return {SYS_kill, {static_cast<uint64_t>(pid), static_cast<uint64_t>(signal)}};
}

// kill(2) in the sender's name; 0 or an errno value.
int kill_as(const Sender& sender, pid_t pid, int signal) {
  auto result = call_as(sender, raw_kill(pid, signal));
  if (!result) return result.error().errno_or(EIO);
  return *result < 0 ? static_cast<int>(-*result) : 0;
}

// What another node answered; with a dead node its processes are gone.
int error_of(const Result<std::string>& reply) {
  if (reply) return 0;
  const int error = reply.error().errno_or(ESRCH);
  return error == EHOSTDOWN ? ESRCH : error;
}

void finish(Call call, int error) {
  if (error != 0) return call.fail(error);
  call.succeed(0);
}

}  // namespace

struct Signals::Impl : std::enable_shared_from_this<Signals::Impl> {
  Impl(NodeContext& context, ProcessTable& processes, JobNamespaces& job_namespaces)
      : node(context), table(processes), jobs(job_namespaces), child_news(context) {}

  void on_kill(Call call, PidCalls& pid_calls);
  void kill_kernel_group(Call call, pid_t group, int signal);
  void send_group_signal(Call call, NodeId to, GroupSignal message);
  void on_group_signal(const GroupSignal& message, Messenger::Reply reply);
  int signal_kernel_group(pid_t group, int signal, const Sender& sender);
  Status signal_members(pid_t group, const std::vector<pid_t>& shadows, int signal);
  int signal_outside_group(pid_t member, int signal, const Sender& sender);
  void tell_bodies(const std::vector<pid_t>& shadows, int signal);
  Status signal_body_group(pid_t body, int signal);
  void kill_everybody(Call call, int signal, const Sender& sender);
  EverybodyCount signal_everybody(int signal, const Sender& sender);

  std::vector<pid_t> shadows_in(pid_t group) const;
  bool may_signal_all(pid_t group, const Sender& sender) const;

  NodeContext& node;
  ProcessTable& table;
  JobNamespaces& jobs;
  ChildNews child_news;
};

void Signals::Impl::on_kill(Call call, PidCalls& pid_calls) {
  const auto pid = static_cast<pid_t>(call.arg(0));
  const auto signal = static_cast<int>(call.arg(1));
  if (pid > 0) return pid_calls.forward(std::move(call));
  const bool is_refused =
      signal < 0 || signal > SIGRTMAX || pid == std::numeric_limits<pid_t>::min();
  if (is_refused) return call.go_on();
  auto sender = read_sender(call.tid());
  if (!sender) return;  // the caller has died
  const pid_t own_group = getpgid(sender->pid);
  const ProcessTable::Body* leader = table.find_group(own_group);
  SignalTarget target =
      signal_target(pid, own_group, leader ? leader->origin : kNoNode, node.pids, node.self);
  if (pid < -1) {  // its leader may have been restarted elsewhere than its number says
    const NodeId home = table.home_of(GlobalPid{-pid});
    target = home == node.self ? SignalTarget(KernelGroup{-pid}) : GroupAt{home, -pid};
  }
  log_debug("signals", "kill({}, {}) by {} of kernel group {}, led by a body: {}", pid, signal,
            sender->pid, own_group, leader != nullptr);
  if (const auto* group = std::get_if<KernelGroup>(&target))
    return kill_kernel_group(std::move(call), group->group, signal);
  if (std::holds_alternative<OutsideGroup>(target))
    return finish(std::move(call), signal_outside_group(sender->pid, signal, *sender));
  if (std::holds_alternative<Everybody>(target))
    return kill_everybody(std::move(call), signal, *sender);
  GroupSignal message;
  message.signal = signal;
  message.sender = *sender;
  if (const auto* shadow = std::get_if<GroupOfShadow>(&target)) {
    message.of_shadow = 1;
    message.pid = shadow->body;
    return send_group_signal(std::move(call), shadow->node, message);
  }
  const auto& remote = std::get<GroupAt>(target);
  message.pid = remote.group;
  if (remote.node.value >= node.node_count) return call.fail(ESRCH);
  send_group_signal(std::move(call), remote.node, message);
}

// A group of this node. Without shadows in it the kernel does all, in the caller's own name.
void Signals::Impl::kill_kernel_group(Call call, pid_t group, int signal) {
  if (shadows_in(group).empty()) return call.go_on();
  auto sender = read_sender(call.tid());
  if (!sender) return;
  finish(std::move(call), signal_kernel_group(group, signal, *sender));
}

void Signals::Impl::send_group_signal(Call call, NodeId to, GroupSignal message) {
  auto waiting = std::make_shared<Call>(std::move(call));
  node.messenger.request(to, message, {}, [waiting](Result<std::string> reply) {
    finish(std::move(*waiting), error_of(reply));
  });
}

void Signals::Impl::on_group_signal(const GroupSignal& message, Messenger::Reply reply) {
  pid_t group = message.pid;
  if (message.of_shadow) {
    group = getpgid(message.pid);
    if (group < 0) return reply.fail(ESRCH);
    if (const auto* leader = table.find_group(group)) {  // the shadow itself is in a body's group
      GroupSignal onward = message;
      onward.pid = group;
      auto waiting = std::make_shared<Messenger::Reply>(std::move(reply));
      return node.messenger.request(leader->origin, onward, {},
                                    [waiting](Result<std::string> answer) {
                                      if (const int error = error_of(answer))
                                        return waiting->fail(error);
                                      waiting->ok();
                                    });
    }
  }
  const int error = group == 0 ? signal_outside_group(message.pid, message.signal, message.sender)
                               : signal_kernel_group(group, message.signal, message.sender);
  if (error != 0) return reply.fail(error);
  reply.ok();
}

// Returns 0 or an errno value.
int Signals::Impl::signal_kernel_group(pid_t group, int signal, const Sender& sender) {
  const std::vector<pid_t> shadows = shadows_in(group);
  log_debug("signals", "signal {} to group {} with {} shadows, by {}", signal, group,
            shadows.size(), sender.pid);
  if (shadows.empty() || signal == 0 || !may_signal_all(group, sender))
    return kill_as(sender, -group, signal);
  const Status sent = signal_members(group, shadows, signal);
  return sent ? 0 : sent.error().errno_or(EIO);
}

// krgd's own kill: si_pid 1 tells the shadows that the whole group was meant. A shadow is stopped
// and resumed only as its body is, so that the two agree: SIGSTOP and SIGCONT go to the others one
// by one.
Status Signals::Impl::signal_members(pid_t group, const std::vector<pid_t>& shadows, int signal) {
  const bool stops_or_continues = signal == SIGSTOP || signal == SIGCONT;
  if (stops_or_continues) {
    for (pid_t pid : table.local_processes())
      if (getpgid(pid) == group) kill(pid, signal);
  } else if (kill(-group, signal) != 0) {
    return errno_error("kill");
  }
  if (stops_or_continues || is_uncatchable(signal)) tell_bodies(shadows, signal);
  return {};
}

// The group of `member` is led from outside (krgrun, the shell that started it): the members of its
// job in it get the signal one by one.
int Signals::Impl::signal_outside_group(pid_t member, int signal, const Sender& sender) {
  const auto job = jobs.job_of(member);
  if (!job) return ESRCH;
  std::vector<RawCall> calls;
  std::vector<pid_t> shadows;
  for (pid_t pid : jobs.members(*job)) {
    if (getpgid(pid) != 0) continue;
    if (table.find_shadow(pid))
      shadows.push_back(pid);
    else
      calls.push_back(raw_kill(pid, signal));
  }
  auto results = call_as(sender, calls);
  if (!results) return results.error().errno_or(EIO);
  if (signal != 0) tell_bodies(shadows, signal);
  const bool reached = !shadows.empty() || std::count(results->begin(), results->end(), 0) > 0;
  return reached ? 0 : results->empty() ? ESRCH : static_cast<int>(-results->front());
}

void Signals::Impl::tell_bodies(const std::vector<pid_t>& shadows, int signal) {
  for (pid_t pid : shadows) {
    const auto* shadow = table.find_shadow(pid);
    if (!shadow) continue;
    BodyGroupSignal message;
    message.body = pid;
    message.signal = signal;
    if (auto sent = node.messenger.send(shadow->body_node, message); !sent)
      log_warn("signals", "signal {} to body {}: {}", signal, pid, sent.error().message());
  }
}

// From krgd itself, so that shadows in the group pass it on in their turn.
Status Signals::Impl::signal_body_group(pid_t body, int signal) {
  const std::vector<pid_t> shadows = shadows_in(body);
  if (!shadows.empty()) return signal_members(body, shadows, signal);
  if (kill(-body, signal) != 0) return errno_error("kill");
  return {};
}

void Signals::Impl::kill_everybody(Call call, int signal, const Sender& sender) {
  struct Pending {
    Call call;
    EverybodyCount count;
    unsigned missing;
  };
  auto pending = std::make_shared<Pending>(Pending{std::move(call), {}, node.node_count});
  EverybodySignal message;
  message.signal = signal;
  message.sender = sender;
  for (uint16_t id = 0; id < node.node_count; ++id)
    node.messenger.request(NodeId{id}, message, {}, [pending](Result<std::string> reply) {
      EverybodyCount count;
      if (reply && reply->size() == sizeof count) {
        std::memcpy(&count, reply->data(), sizeof count);
        pending->count.signalled += count.signalled;
        pending->count.denied += count.denied;
      }
      if (--pending->missing == 0) finish(std::move(pending->call), pending->count.error());
    });
}

EverybodyCount Signals::Impl::signal_everybody(int signal, const Sender& sender) {
  EverybodyCount count;
  std::set<pid_t> seen{sender.pid};
  for (int round = 0; round < kMaxRounds; ++round) {
    std::vector<RawCall> calls;
    for (pid_t pid : table.local_processes())
      if (seen.insert(pid).second) calls.push_back(raw_kill(pid, signal));
    if (calls.empty()) break;
    auto results = call_as(sender, calls);
    if (!results) break;
    count.signalled += static_cast<uint32_t>(std::count(results->begin(), results->end(), 0));
    count.denied += static_cast<uint32_t>(std::count(results->begin(), results->end(), -EPERM));
  }
  return count;
}

std::vector<pid_t> Signals::Impl::shadows_in(pid_t group) const {
  std::vector<pid_t> members;
  for (pid_t pid : table.shadows())
    if (!table.find_shadow(pid)->is_guardian() && getpgid(pid) == group) members.push_back(pid);
  return members;
}

bool Signals::Impl::may_signal_all(pid_t group, const Sender& sender) const {
  std::vector<pid_t> candidates = table.local_processes();
  for (pid_t shadow : table.shadows()) candidates.push_back(shadow);
  return std::all_of(candidates.begin(), candidates.end(), [&](pid_t pid) {
    if (getpgid(pid) != group) return true;
    auto target = read_credentials(pid);
    return !target || may_signal(sender.credentials, *target);
  });
}

Signals::Signals(NodeContext& node, SyscallBroker& broker, ProcessTable& table, JobNamespaces& jobs,
                 PidCalls& pid_calls)
    : impl_(std::make_shared<Impl>(node, table, jobs)) {
  broker.set_handler(SYS_kill, [impl = impl_.get(), &pid_calls](Call call) {
    impl->on_kill(std::move(call), pid_calls);
  });
  node.messenger.on_request<GroupSignal>([impl = impl_.get()](NodeId, const GroupSignal& message,
                                                              std::string_view,
                                                              Messenger::Reply reply) {
    impl->on_group_signal(message, std::move(reply));
  });
  node.messenger.on_request<EverybodySignal>(
      [impl = impl_.get()](NodeId, const EverybodySignal& message, std::string_view,
                           Messenger::Reply reply) {
        reply.ok(object_bytes(impl->signal_everybody(message.signal, message.sender)));
      });
  node.messenger.on<BodyGroupSignal>(
      [impl = impl_.get()](NodeId, const BodyGroupSignal& message, std::string_view) {
        if (auto sent = impl->signal_body_group(message.body, message.signal); !sent)
          log_debug("signals", "group of body {}: {}", message.body, sent.error().message());
      });
}
Signals::~Signals() = default;

Status Signals::signal_body(pid_t body, const SignalInfo& signal) {
  if (signal.is_for_group()) return impl_->signal_body_group(body, signal.signal);
  // Who may send it has been decided where the shadow is: here only the name counts.
  const Credentials name{signal.sender_uid,      signal.sender_uid, signal.sender_uid, 0, 0, 0,
                         uint64_t{1} << CAP_KILL};
  siginfo_t info{};
  info.si_signo = signal.signal;
  info.si_code = signal.code;
  info.si_pid = signal.sender;
  info.si_uid = signal.sender_uid;
  info.si_value.sival_ptr = reinterpret_cast<void*>(signal.value);
  RawCall call = raw_kill(body, signal.signal);
  if (signal.code < 0 && signal.code != SI_TKILL)  // SI_QUEUE, SI_MESGQ, ...: with a value
    call = {SYS_rt_sigqueueinfo, {call.args[0], call.args[1], reinterpret_cast<uint64_t>(&info)}};
  if (signal.signal == SIGCHLD && signal.code > 0) {
    info.si_status = static_cast<int>(signal.value);
    return impl_->child_news.tell(body, info, Sender{signal.sender, name});
  }
  auto sent = call_as(Sender{signal.sender, name}, call);
  if (!sent) return sent.error();
  if (*sent < 0) return errno_error("kill", static_cast<int>(-*sent));
  return {};
}

}  // namespace krg
