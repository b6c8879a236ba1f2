// MessageQueues: the System V message queues of a session as a pure state machine: a call or
// another event goes in, the calls that are answered by it come out. Senders wait for room and
// receivers for a message until they can be served, their queue is removed, or cancel() takes them
// out.
//
// calls and their args (pointers are left out; `data` is what they point to):
//   msgget(key, flags)
//   msgsnd(id, type, size, flags)     data: the text
//   msgrcv(id, size, type, flags)     out: the type (8 bytes) and the text; value: bytes of text
//   msgctl(id, command)               data: the msqid_ds of IPC_SET; out: a msqid_ds, a msginfo
//
// Owned by the IpcHome of the node that keeps the objects. Errors: as msgop(2), msgctl(2),
// msgget(2). Source: the same, and the order in which Linux checks.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/msg.h>

#include <deque>
#include <list>
#include <optional>

#include "ipc_owners.h"
#include "ipc_table.h"
#include "krg/procmgr/saved_ipc.h"

namespace krg {

class MessageQueues {
 public:
  // Linux's defaults (msgget(2), msgop(2)).
  static constexpr int kMostQueues = 32000;
  static constexpr int64_t kMostMessageBytes = 8192, kMostQueueBytes = 16384;

  explicit MessageQueues(int first_sequence = 0) : queues_(first_sequence) {}

  IpcDones step(const IpcCall& call);
  // Takes a waiting call out: its ticket's caller waits no longer. False when it does not wait.
  bool cancel(const IpcTicket& ticket);
  // A node has failed: its calls wait no longer.
  void node_failed(NodeId node);
  // A message, type and text as msgrcv gave them, whose receiver died waiting: the next one of its
  // queue.
  IpcDones give_back(int64_t id, std::string_view message, int64_t now_s);
  // For checkpoints (saved_objects.cpp): those that are taken; made again; without them. Errors:
  // those of `takes`; EEXIST.
  Status save(const TakesIpc& takes, SavedIpc& into);
  Status restore(const SavedMessageQueue& saved);
  void drop(const SavedMessageQueue& saved);
  // The text of /proc/sysvipc/msg.
  std::string text();

 private:
  struct Message {
    int64_t type = 0;
    std::string text;
  };
  // What msgrcv asks for.
  struct Selector {
    enum class Kind { kAny, kEqual, kNotEqual, kLowestUpTo, kNth } kind = Kind::kAny;
    int64_t type = 0;  // kNth: the number
    bool matches(const Message& message) const;
  };
  struct Queue {
    IpcPermissions permissions;
    std::deque<Message> messages;
    int64_t bytes = 0, most_bytes = kMostQueueBytes;
    int64_t sent_s = 0, received_s = 0, changed_s = 0;
    pid_t last_sender = 0, last_receiver = 0;
    std::list<IpcCall> senders, receivers;  // in order of arrival
    bool has_room(int64_t more) const {
      return bytes + more <= most_bytes && static_cast<int64_t>(messages.size()) + 1 <= most_bytes;
    }
  };

  IpcDone get(const IpcCall& call);
  IpcDones send(const IpcCall& call);
  IpcDones receive(const IpcCall& call);
  IpcDones control(const IpcCall& call);
  IpcDone stat(const IpcCall& call, int command);
  IpcDone info(const IpcCall& call, bool in_use);
  IpcDones change(const IpcCall& call, Queue& queue);
  IpcDones remove(const IpcCall& call, int id, Queue& queue);
  static Selector selector_of(const IpcCall& call);
  // The message that a receiver gets now; messages.end() when none.
  static std::deque<Message>::iterator find_message(Queue& queue, const Selector& wanted);
  // The answer to a receiver, when there is one now.
  std::optional<IpcDone> try_receive(Queue& queue, const IpcCall& call);
  // Hands a message to a receiver that waits for it, or queues it.
  void put(Queue& queue, Message message, int64_t now_s, IpcDones& done);
  void admit_senders(Queue& queue, int64_t now_s, IpcDones& done);

  IpcTable<Queue> queues_;
};

}  // namespace krg
