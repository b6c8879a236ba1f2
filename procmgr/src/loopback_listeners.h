// LoopbackListeners: one loopback network for nodes that have network namespaces of their own. When
// a process listens at a loopback address (127.0.0.1, ::1, or any), krgd of each other node listens
// at the same address and port there, and what connects is joined to the process's own socket
// (ListenerRelays). listen(2) returns when they do.
//
// Owner: Descriptors. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/syscall_broker.h"
#include "listener_relays.h"

namespace krg {

class LoopbackListeners {
 public:
  LoopbackListeners(NodeContext& node, SyscallBroker& broker, RemoteHome& home,
                    SocketRelays& sockets, ListenerRelays& relays);
  LoopbackListeners(const LoopbackListeners&) = delete;
  LoopbackListeners& operator=(const LoopbackListeners&) = delete;

 private:
  void on_listen(SyscallBroker::Call call);
  // `answer` is kept until the other node has answered.
  void ask(NodeId other, ino_t inode, const ListenerShape& place, pid_t process,
           std::shared_ptr<void> answer);
  Result<HomeId> listen_for(NodeId from, const LoopbackListen& asked);

  NodeContext& node_;
  RemoteHome& home_;
  SocketRelays& sockets_;
  ListenerRelays& relays_;
  const uint64_t network_;  // inode number of this node's network namespace
};

}  // namespace krg
