// IpcHome: keeps the session's semaphores (System V) and message queues (System V, POSIX), where
// this node is the lowest that lives, and answers the nodes' calls on them. Every node has one;
// those of the others stay empty until it is their turn: the objects of a node that fails are lost
// with it.
//
// Threads: the loop's thread. Owned by Ipc.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>

#include "alive.h"
#include "krg/procmgr/node_context.h"
#include "message_queues.h"
#include "posix_queues.h"
#include "semaphore_sets.h"

namespace krg {

// The node that keeps the objects, as `messenger` sees it.
NodeId ipc_home(const Messenger& messenger);

class IpcHome {
 public:
  explicit IpcHome(NodeContext& node);
  IpcHome(const IpcHome&) = delete;
  IpcHome& operator=(const IpcHome&) = delete;

  // Calls that wait for their answer now.
  size_t waiting_count() const { return waiting_.size(); }

 private:
  void on_call(IpcCall call, Messenger::Reply reply);
  void on_node_failure(NodeId failed);
  void cancel(const IpcTicket& ticket);
  void answer(IpcDones done);
  void save(std::string_view payload, Messenger::Reply& reply);
  void restore(NodeId from, const SavedIpc& saved, Messenger::Reply& reply);
  void drop(const SavedIpc& saved);
  void tell_of_posix_queues();

  Messenger& messenger_;
  SemaphoreSets semaphores_;
  MessageQueues queues_;
  PosixQueues posix_queues_;
  std::map<IpcTicket, Messenger::Reply> waiting_;
  Alive alive_;
};

}  // namespace krg
