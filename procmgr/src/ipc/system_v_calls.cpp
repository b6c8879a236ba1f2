// SPDX-License-Identifier: GPL-2.0-or-later
#include "system_v_calls.h"

#include <sys/syscall.h>

#include "ipc_caller.h"
#include "ipc_home.h"
#include "ipc_messages.h"
#include "krg/runtime/log.h"
#include "posix_queues.h"

namespace krg {
namespace {

using namespace ipc_messages;

constexpr int kCalls[] = {SYS_semget, SYS_semop,  SYS_semtimedop, SYS_semctl,
                          SYS_msgget, SYS_msgsnd, SYS_msgrcv,     SYS_msgctl};

constexpr int64_t kCopyFlag = 040000;  // MSG_COPY, linux/msg.h

}  // namespace

struct SystemVCalls::Asked {
  uint64_t wait = 0;  // its number in WaitingCalls
  uint64_t ticket = 0;
  NodeId home;
  IpcCaller caller;
  IpcShape shape;
  std::optional<WaitingCalls::Why> ended;  // why its caller stops waiting
};

SystemVCalls::SystemVCalls(NodeContext& node, SyscallBroker& broker, WaitingCalls& waits,
                           ExitWatch& exits)
    : node_(node), waits_(waits), exits_(exits) {
  for (int number : kCalls)
    broker.set_handler(number, [this](Call call) { on_call(std::move(call)); });
}

void SystemVCalls::on_call(Call call) {
  exits_.drain();  // what ended before this call was made has its effect first
  auto caller = read_ipc_caller(call.tid());
  if (!caller) return call.fail(ESRCH);
  auto shape = shape_of(call);
  if (!call.is_valid()) return call.fail(ESRCH);  // that was another process's memory
  if (!shape) return call.fail(shape.error().errno_or(EINVAL));
  if (shape->undoes) exits_.add(caller->pid);
  if (shape->sets_all) return set_all(std::move(call), *caller, *shape);
  ask(std::move(call), *caller, std::move(*shape));
}

// How many values there are to read only the home knows.
void SystemVCalls::set_all(Call call, const IpcCaller& caller, const IpcShape& shape) {
  IpcShape question = shape;
  question.args[2] = SemaphoreSets::kCountCommand;
  send_call(next_ticket_++, caller, question,
            [this, call = shared(std::move(call)), caller, shape](Result<std::string> answer) {
              const auto count = answer ? ipc_value_of(*answer) : std::nullopt;
              if (!count) return call->fail(answer ? EINVAL : answer.error().errno_or(EINVAL));
              const auto bytes = static_cast<size_t>(*count) * sizeof(unsigned short);
              auto values = call->read_memory(shape.out, bytes);
              if (!values) return call->fail(EFAULT);
              IpcShape filled = shape;
              filled.data = std::move(*values);
              ask(std::move(*call), caller, std::move(filled));
            });
}

void SystemVCalls::ask(Call call, const IpcCaller& caller, IpcShape shape) {
  auto asked = std::make_shared<Asked>();
  asked->caller = caller;
  asked->shape = std::move(shape);
  WaitingCalls::Wait wait;
  if (asked->shape.timeout)
    wait.deadline =
        WaitingCalls::Clock::now() +
        std::chrono::duration_cast<WaitingCalls::Clock::duration>(*asked->shape.timeout);
  wait.restart = asked->shape.restart;
  wait.end = [this, asked](WaitingCalls::Why why) { on_end(asked, why); };
  asked->wait = waits_.begin(std::move(call), caller.pid, std::move(wait));
  send(asked);
}

void SystemVCalls::send(const std::shared_ptr<Asked>& asked) {
  asked->ticket = next_ticket_++;
  asked->home = ipc_home(node_.messenger);
  send_call(asked->ticket, asked->caller, asked->shape,
            [this, asked](Result<std::string> answer) { on_answer(asked, std::move(answer)); });
}

void SystemVCalls::ask(const IpcCaller& caller, const IpcShape& shape, Answered done) {
  send_call(next_ticket_++, caller, shape, std::move(done));
}

void SystemVCalls::send_call(uint64_t ticket, const IpcCaller& caller, const IpcShape& shape,
                             Answered done) {
  MakeCall message;
  message.number = shape.number;
  message.ticket = ticket;
  message.pid = caller.pid;
  message.uid = caller.uid;
  message.gid = caller.gid;
  message.group_count = static_cast<uint32_t>(caller.groups.size());
  message.capabilities = caller.capabilities;
  message.args = shape.args;
  std::string payload(reinterpret_cast<const char*>(caller.groups.data()),
                      caller.groups.size() * sizeof(gid_t));
  payload += shape.data;
  node_.messenger.request(ipc_home(node_.messenger), message, payload,
                          alive_.guard(std::move(done)));
}

// The home has the last word: the call may have been carried out just now.
void SystemVCalls::on_end(const std::shared_ptr<Asked>& asked, WaitingCalls::Why why) {
  asked->ended = why;
  CancelCall cancel;
  cancel.ticket = asked->ticket;
  if (!node_.messenger.send(asked->home, cancel))
    log_debug("ipc", "node {} has failed", asked->home.value);
}

void SystemVCalls::on_answer(const std::shared_ptr<Asked>& asked, Result<std::string> answer) {
  if (waits_.find(asked->wait) == nullptr) return;
  if (answer) return deliver(waits_.finish(asked->wait), *asked, *answer);
  const int error = answer.error().errno_or(EIO);
  if (error == EHOSTDOWN && asked->shape.makes) return send(asked);  // of the next home
  if (error == ECANCELED && asked->ended == WaitingCalls::Why::kSignal)
    return waits_.interrupted(asked->wait);
  Call call = waits_.finish(asked->wait);
  if (error == ECANCELED) return call.fail(asked->shape.timed_out);  // or nobody there
  // Whatever the home kept is lost with it.
  call.fail(error == EHOSTDOWN ? asked->shape.lost : error);
}

void SystemVCalls::deliver(Call call, const Asked& asked, const std::string& answer) {
  const auto value = ipc_value_of(answer);
  if (!value) return call.fail(EIO);
  const std::string_view written = std::string_view(answer).substr(sizeof *value);
  if (asked.shape.deliver) {
    if (!asked.shape.deliver(std::move(call), *value, written)) take_back(asked, written);
    return;
  }
  if (!written.empty() && !call.write_memory(asked.shape.out, written)) {
    if (!call.is_valid()) take_back(asked, written);
    return call.fail(EFAULT);
  }
  if (!call.try_succeed(*value)) take_back(asked, written);
}

void SystemVCalls::take_back(const Asked& asked, std::string_view written) {
  const int number = asked.shape.number;
  const bool is_semop = number == SYS_semop || number == SYS_semtimedop;
  const bool is_receive = (number == SYS_msgrcv && !(asked.shape.args[3] & kCopyFlag)) ||
                          number == static_cast<int>(PosixQueueOp::kReceive);
  if (!is_semop && !is_receive) return;
  TakeBack message;
  message.number = number;
  message.object = asked.shape.args[0];
  if (!node_.messenger.send(asked.home, message, is_semop ? asked.shape.data : written))
    log_debug("ipc", "node {} has failed", asked.home.value);
}

void SystemVCalls::tell_process_ended(pid_t process) {
  ProcessEnded message;
  message.pid = process;
  if (!node_.messenger.send(ipc_home(node_.messenger), message))
    log_debug("ipc", "no node keeps semaphores");
}

}  // namespace krg
