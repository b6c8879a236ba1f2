// SystemVCalls: the System V semaphore and message calls of this node's programs: asks the home of
// the objects and answers with what it says, or ends the wait when a signal, a time limit or the
// caller's death says so. A call that was carried out for a caller that died waiting is taken back.
// Other calls on objects that live there go the same way (posix_queue_calls.h).
//
// Threads: the loop's thread. Owned by Ipc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "alive.h"
#include "ipc_shape.h"
#include "krg/procmgr/node_context.h"

namespace krg {

class SystemVCalls {
 public:
  // Registers their handlers.
  SystemVCalls(NodeContext& node, SyscallBroker& broker, WaitingCalls& waits, ExitWatch& exits);
  SystemVCalls(const SystemVCalls&) = delete;
  SystemVCalls& operator=(const SystemVCalls&) = delete;

  void tell_process_ended(pid_t process);

  // Answers `call` when the home has carried out what `shape` says.
  void ask(SyscallBroker::Call call, const IpcCaller& caller, IpcShape shape);
  // The same for krgd itself, which does not wait long. The answer: the value (8 bytes), then data.
  using Answered = std::function<void(Result<std::string>)>;
  void ask(const IpcCaller& caller, const IpcShape& shape, Answered done);

 private:
  using Call = SyscallBroker::Call;
  struct Asked;  // a call whose answer is awaited
  void on_call(Call call);
  void set_all(Call call, const IpcCaller& caller, const IpcShape& shape);
  void send(const std::shared_ptr<Asked>& asked);
  void on_end(const std::shared_ptr<Asked>& asked, WaitingCalls::Why why);
  void on_answer(const std::shared_ptr<Asked>& asked, Result<std::string> answer);
  void deliver(Call call, const Asked& asked, const std::string& answer);
  void take_back(const Asked& asked, std::string_view written);
  void send_call(uint64_t ticket, const IpcCaller& caller, const IpcShape& shape, Answered done);

  NodeContext& node_;
  WaitingCalls& waits_;
  ExitWatch& exits_;
  uint64_t next_ticket_ = 1;
  Alive alive_;
};

}  // namespace krg
