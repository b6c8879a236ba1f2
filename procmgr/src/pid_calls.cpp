// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/pid_calls.h"

#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <chrono>
#include <csignal>
#include <cstring>

#include "krg/runtime/log.h"
#include "krg/runtime/run_after.h"
#include "pid_call_table.h"
#include "process_status.h"
#include "stop_state.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

// "Carry this call out where you are." Payload: what the call reads from memory. The reply is a
// RemoteResult, followed by what the call wrote.
struct RemoteCall {
  static constexpr uint16_t kId = message_ids::kSignals + 1;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  Sender sender;
  RawCall call;
};
static_assert(sizeof(RemoteCall) == 104);

constexpr unsigned kIoPriorityOfProcess = 1;  // IOPRIO_WHO_PROCESS, ioprio_set(2)
// How often a process that moves on is followed, and one that is about to stop is looked at.
constexpr std::chrono::milliseconds kLookPeriod{2};
constexpr int kLooks = 500;

// kill may name a group (Signals); masks of processors are the cluster's (ClusterView).
bool has_an_owner(int number) {
  return number == SYS_kill || number == SYS_sched_getaffinity || number == SYS_sched_setaffinity;
}

RawCall raw_call_of(const Call& call) {
  RawCall raw{call.number(), {}};
  for (unsigned i = 0; i < raw.args.size(); ++i) raw.args[i] = call.arg(i);
  return raw;
}

// getpriority and ioprio_get name a process, a group or a user by their first argument.
bool names_a_process(const RawCall& call) {
  switch (call.number) {
    case SYS_getpriority:
    case SYS_setpriority:
      return static_cast<int>(call.args[0]) == PRIO_PROCESS;
    case SYS_ioprio_get:
    case SYS_ioprio_set:
      return static_cast<unsigned>(call.args[0]) == kIoPriorityOfProcess;
    default:
      return true;
  }
}

std::string_view bytes_of_value(const int64_t& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

void answer(Call call, const PidCall& shape, Result<std::string> reply) {
  int64_t value;
  if (!reply) return call.fail(reply.error().errno_or(ESRCH) == EHOSTDOWN ? ESRCH : EREMOTE);
  if (reply->size() < sizeof value) return call.fail(EREMOTE);
  std::memcpy(&value, reply->data(), sizeof value);
  if (value < 0) return call.fail(static_cast<int>(-value));
  const std::string_view written = std::string_view(*reply).substr(sizeof value);
  if (!written.empty() && !call.write_memory(RemoteAddr{call.arg(shape.out.arg)}, written))
    return call.fail(EFAULT);
  call.succeed(value);
}

bool signals_a_process(const RawCall& call) {
  return call.number == SYS_kill || call.number == SYS_rt_sigqueueinfo;
}

bool continues_too_early(const ProcessTable& table, const RawCall& call) {
  const auto pid = static_cast<pid_t>(call.args[0]);
  return signals_a_process(call) && static_cast<int>(call.args[1]) == SIGCONT &&
         (is_about_to_stop(pid) || stands_to_be_moved(table, pid));
}

bool waits_for_a_move(const ProcessTable& table, const RawCall& call) {
  const auto pid = static_cast<pid_t>(call.args[0]);
  return signals_a_process(call) && static_cast<int>(call.args[1]) != SIGKILL &&
         table.executes_here(pid) && stands_to_be_moved(table, pid);
}

// The other node's side: the kernel does it in the sender's name.
void carry_out(const RemoteCall& message, std::string_view input,
               const PidCalls::ProcessorMasks& masks, Messenger::Reply reply) {
  const PidCall* shape = find_pid_call(message.call.number);
  if (!shape) return reply.fail(ENOSYS);
  RawCall call = message.call;
  const size_t in_bytes = bytes_of(shape->in, call);
  const size_t out_bytes = bytes_of(shape->out, call);
  if (in_bytes != input.size() || out_bytes > kMaxCallBuffer) return reply.fail(EINVAL);
  std::string in(input), out(out_bytes, '\0');
  if (call.number == SYS_sched_setaffinity && masks.of_node) {
    auto own = masks.of_node(in);
    if (!own) return reply.ok(bytes_of_value(-EINVAL));
    in = std::move(*own);
    call.args[1] = in.size();
  }
  if (in_bytes > 0) call.args[shape->in.arg] = reinterpret_cast<uint64_t>(in.data());
  if (out_bytes > 0) call.args[shape->out.arg] = reinterpret_cast<uint64_t>(out.data());
  auto value = call_as(message.sender, call);
  if (!value) return reply.fail(value.error().errno_or(EIO));
  log_debug("signals", "{}({}) for pid {}: {}", shape->name,
            static_cast<pid_t>(call.args[shape->pid_arg]), message.sender.pid, *value);
  // It tells by its value how much it wrote.
  if (call.number == SYS_sched_getaffinity && *value >= 0) {
    out.resize(static_cast<size_t>(*value));
    if (masks.of_cluster) out = masks.of_cluster(out);
    if (out.size() > out_bytes) return reply.fail(EINVAL);
    value = static_cast<int64_t>(out.size());
  }
  std::string answer(bytes_of_value(*value));
  if (*value >= 0) answer += out;
  reply.ok(answer);
}

}  // namespace

struct PidCalls::Impl : std::enable_shared_from_this<PidCalls::Impl> {
  Impl(NodeContext& context, ProcessTable& processes) : node(context), table(processes) {}

  void forward(Call call, int looks);
  void route(Call call, pid_t pid, Elsewhere elsewhere);
  // Has node `to` carry `raw` out in the caller's name; its result answers `call`.
  void send(Call call, const RawCall& raw, NodeId to);
  struct Sending {
    Call call;
    const PidCall& shape;
    RemoteCall message;
    std::string input;
    int looks = kLooks;
  };
  void send(const std::shared_ptr<Sending>& sending, NodeId to);
  void follow(const std::shared_ptr<Sending>& sending);
  void on_remote_call(const RemoteCall& message, std::string input, Messenger::Reply reply,
                      int looks);
  void trace_me(Call call);

  NodeContext& node;
  ProcessTable& table;
  ProcessorMasks masks;
};

// The signal of one here to one that stands to be moved waits until that is settled: what came
// behind the image and was not seen in time would be lost with what the process was here.
void PidCalls::Impl::forward(Call call, int looks) {
  const RawCall raw = raw_call_of(call);
  const auto pid = static_cast<pid_t>(call.arg(find_pid_call(call.number())->pid_arg));
  if (looks > 0 && waits_for_a_move(table, raw)) {
    auto waiting = std::make_shared<Call>(std::move(call));
    return run_after(node.loop, kLookPeriod, [self = shared_from_this(), waiting, looks] {
      self->forward(std::move(*waiting), looks - 1);
    });
  }
  route(std::move(call), pid, [self = shared_from_this(), raw](Call remote, NodeId to) {
    self->send(std::move(remote), raw, to);
  });
}

void PidCalls::Impl::route(Call call, pid_t pid, Elsewhere elsewhere) {
  if (const auto* shadow = table.find_shadow(pid))
    return elsewhere(std::move(call), shadow->body_node);
  if (pid <= 0 || table.executes_here(pid)) return call.go_on();
  const bool is_signal = signals_a_process(raw_call_of(call));
  auto waiting = std::make_shared<Call>(std::move(call));
  table.locate(GlobalPid{pid}, [self = shared_from_this(), pid, is_signal, waiting,
                                elsewhere = std::move(elsewhere)](Result<NodeId> where) {
    if (!where) return waiting->fail(ESRCH);
    // It may have moved on before the answer came: a signal follows it.
    const bool has_left = is_signal && !self->table.executes_here(pid);
    if (*where == self->node.self && !has_left) return waiting->go_on();
    elsewhere(std::move(*waiting), *where);
  });
}

void PidCalls::Impl::send(Call call, const RawCall& raw, NodeId to) {
  const PidCall* shape = find_pid_call(raw.number);
  RemoteCall message;
  message.call = raw;
  const size_t in_bytes = bytes_of(shape->in, message.call);
  if (in_bytes > kMaxCallBuffer || bytes_of(shape->out, message.call) > kMaxCallBuffer)
    return call.fail(EINVAL);
  std::string input;
  if (in_bytes > 0) {
    auto read = call.read_memory(RemoteAddr{message.call.args[shape->in.arg]}, in_bytes);
    if (!read) return call.fail(EFAULT);
    input = std::move(*read);
  }
  auto sender = read_sender(call.tid());
  if (!sender) return;  // the caller has died
  message.sender = *sender;
  send(std::make_shared<Sending>(Sending{std::move(call), *shape, message, std::move(input)}), to);
}

void PidCalls::Impl::send(const std::shared_ptr<Sending>& sending, NodeId to) {
  node.messenger.request(
      to, sending->message, sending->input,
      [self = shared_from_this(), sending](Result<std::string> reply) {
        if (reply || reply.error().errno_or(0) != ESTALE || sending->looks-- == 0)
          return answer(std::move(sending->call), sending->shape, std::move(reply));
        run_after(self->node.loop, kLookPeriod, [self, sending] { self->follow(sending); });
      });
}

// It has moved on while the message was on its way.
void PidCalls::Impl::follow(const std::shared_ptr<Sending>& sending) {
  const auto pid = static_cast<pid_t>(sending->message.call.args[sending->shape.pid_arg]);
  table.locate(GlobalPid{pid}, [self = shared_from_this(), sending](Result<NodeId> where) {
    if (!where) return sending->call.fail(ESRCH);
    self->send(sending, *where);
  });
}

void PidCalls::Impl::on_remote_call(const RemoteCall& message, std::string input,
                                    Messenger::Reply reply, int looks) {
  if (signals_a_process(message.call) &&
      !table.executes_here(static_cast<pid_t>(message.call.args[0])))
    return reply.fail(ESTALE);
  if (message.call.number == SYS_sched_setaffinity && masks.move && !masks.of_node(input)) {
    auto waiting = std::make_shared<Messenger::Reply>(std::move(reply));
    return masks.move(static_cast<pid_t>(message.call.args[0]), input, [waiting](bool has_moved) {
      has_moved ? waiting->fail(ESTALE) : waiting->ok(bytes_of_value(-EINVAL));
    });
  }
  if (looks == 0 || !continues_too_early(table, message.call))
    return carry_out(message, input, masks, std::move(reply));
  auto waiting = std::make_shared<Messenger::Reply>(std::move(reply));
  run_after(node.loop, kLookPeriod,
            [self = shared_from_this(), message, input = std::move(input), waiting, looks] {
              self->on_remote_call(message, input, std::move(*waiting), looks - 1);
            });
}

// By its parent, that is: a body's is on another node, and krgd, which the kernel takes for it,
// does not trace.
void PidCalls::Impl::trace_me(Call call) {
  const auto caller = read_process_status(call.tid());
  const bool is_body = caller && table.find_body(caller->pid) != nullptr;
  is_body ? call.fail(EPERM) : call.go_on();
}

PidCalls::PidCalls(NodeContext& node, SyscallBroker& broker, ProcessTable& table)
    : impl_(std::make_shared<Impl>(node, table)) {
  node.messenger.on_request<RemoteCall>([impl = impl_](NodeId, const RemoteCall& message,
                                                       std::string_view input,
                                                       Messenger::Reply reply) {
    impl->on_remote_call(message, std::string(input), std::move(reply), kLooks);
  });
  for (const PidCall& shape : pid_calls()) {
    if (has_an_owner(shape.number)) continue;
    broker.set_handler(shape.number, [this](Call call) {
      if (!names_a_process(raw_call_of(call))) return call.go_on();
      forward(std::move(call));
    });
  }
  // Which argument of the calls that only work on the caller's own node is the pid.
  constexpr std::pair<int, unsigned> kLocalOnly[] = {{SYS_ptrace, 1}, {SYS_pidfd_open, 0}};
  for (auto [number, pid_arg] : kLocalOnly)
    broker.set_handler(number, [impl = impl_.get(), pid_arg = pid_arg](Call call) {
      if (call.number() == SYS_ptrace && call.arg(0) == PTRACE_TRACEME)
        return impl->trace_me(std::move(call));
      const auto pid = static_cast<pid_t>(call.arg(pid_arg));
      // A shadow has a pidfd like any child: it becomes readable when the body has ended.
      if (call.number() == SYS_pidfd_open && impl->table.find_shadow(pid)) return call.go_on();
      impl->route(std::move(call), pid, [](Call refused, NodeId) { refused.fail(EREMOTE); });
    });
  // kcmp compares two processes: both must be here.
  broker.set_handler(SYS_kcmp, [impl = impl_.get()](Call call) {
    const auto first = static_cast<pid_t>(call.arg(0)), second = static_cast<pid_t>(call.arg(1));
    impl->route(std::move(call), impl->table.executes_here(first) ? second : first,
                [](Call refused, NodeId) { refused.fail(EREMOTE); });
  });
}
PidCalls::~PidCalls() = default;

void PidCalls::set_masks(ProcessorMasks masks) {
  impl_->masks = std::move(masks);
}

void PidCalls::forward(Call call) {
  impl_->forward(std::move(call), kLooks);
}

void PidCalls::route(Call call, pid_t pid, Elsewhere elsewhere) {
  impl_->route(std::move(call), pid, std::move(elsewhere));
}

void PidCalls::signal_by_pidfd(Call call, pid_t pid) {
  RawCall raw{SYS_kill, {static_cast<uint64_t>(pid), call.arg(1)}};
  if (call.arg(3) != 0) return call.fail(EINVAL);  // flags: none is known
  if (call.arg(2) != 0) {
    raw = {SYS_rt_sigqueueinfo, {raw.args[0], call.arg(1), call.arg(2)}};
    const auto number = call.read_memory(RemoteAddr{call.arg(2)}, sizeof(int));
    if (!number) return call.fail(EFAULT);
    // rt_sigqueueinfo(2) takes its own number for granted.
    const auto signal = static_cast<int>(call.arg(1));
    if (std::memcmp(number->data(), &signal, sizeof signal) != 0) return call.fail(EINVAL);
  }
  if (impl_->table.executes_here(pid)) return impl_->send(std::move(call), raw, impl_->node.self);
  impl_->route(std::move(call), pid, [self = impl_, raw](Call remote, NodeId to) {
    self->send(std::move(remote), raw, to);
  });
}

}  // namespace krg
