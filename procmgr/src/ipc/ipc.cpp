// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/ipc.h"

#include "futex_calls.h"
#include "futex_home.h"
#include "ipc_home.h"
#include "ipc_messages.h"
#include "posix_queue_calls.h"
#include "system_v_calls.h"

namespace krg {

struct Ipc::Impl {
  Impl(NodeContext& n, SyscallBroker& broker, SessionFs& fs, SharedWords words)
      : node(n),
        exits(n.loop, [this](pid_t pid) { on_exit(pid); }),
        waits(n.loop, exits),
        home(n),
        calls(n, broker, waits, exits),
        posix_queues(n, broker, fs, calls, exits),
        futex_home(n),
        futexes(n, broker, waits, exits, std::move(words)) {}

  void on_exit(pid_t pid) {
    calls.tell_process_ended(pid);
    waits.process_ended(pid);
    posix_queues.process_ended(pid);
    futexes.process_ended(pid);
  }

  NodeContext& node;
  ExitWatch exits;
  WaitingCalls waits;
  IpcHome home;
  SystemVCalls calls;
  PosixQueueCalls posix_queues;
  FutexHome futex_home;
  FutexCalls futexes;
};

Ipc::Ipc(NodeContext& node, SyscallBroker& broker, SessionFs& fs, SharedWords words) {
  if (node.node_count > 1) impl_ = std::make_unique<Impl>(node, broker, fs, std::move(words));
}
Ipc::~Ipc() = default;

void Ipc::process_ended(pid_t pid) {
  if (!impl_) return;
  impl_->exits.drain();
  impl_->waits.process_ended(pid);
}

bool Ipc::read_text(std::string_view name, std::function<void(Result<std::string>)> done) {
  if (!impl_ || (name != "sem" && name != "msg" && name != "mqueue")) return false;
  ipc_messages::TellObjects message;
  message.of_queues = name == "sem" ? 0 : name == "msg" ? 1 : 2;
  impl_->node.messenger.request(ipc_home(impl_->node.messenger), message, {}, std::move(done));
  return true;
}

size_t Ipc::waiting_count() const {
  return impl_ ? impl_->waits.size() : 0;
}

}  // namespace krg
