// PosixQueues: the POSIX message queues of a session as a pure state machine, like MessageQueues: a
// call or another event goes in, the calls that are answered by it come out. A queue lives until
// its name is gone and no node uses it any more.
//
// calls (PosixQueueOp) and their args; `queue` is the number that kOpen and kLookUp tell:
//   kOpen(flags, mode, messages, size)  data: PosixQueueLimits and the name; messages < 0: as the
//                                       system's default; value: the queue, which the caller's node
//                                       uses once more
//   kUnlink()                           data: the name
//   kSend(queue, priority, nonblocking) data: the text
//   kReceive(queue, size, nonblocking)  out: the priority (4 bytes) and the text; value: its bytes
//   kNotify(queue, how, signal, value)  how: SIGEV_…, or -1: no more
//   kStat(queue)                        out: PosixQueueState
//   kLookUp()                           data: the name; out: PosixQueueState; value: the queue
//   kList()                             out: names, each with a NUL
//   kChange(queue, mode, uid, gid)      -1: stays; out: PosixQueueState
//   kPoll(queue, watches)               value: events of poll(2); `watches`: the node is told of
//                                       the next change
//   kUse(queue, flags), kDrop(queue)    the caller's node uses it once more, once less
//
// Owned by the IpcHome of the node that keeps the objects. Errors: as mq_open(3) and its kin.
// Source: the same, mq_overview(7), and the order in which Linux checks (ipc/mqueue.c).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <list>
#include <optional>
#include <set>

#include "ipc_owners.h"
#include "ipc_table.h"
#include "krg/procmgr/saved_ipc.h"

namespace krg {

// Beside the numbers of system calls in IpcCall::number.
enum class PosixQueueOp : int {
  kOpen = 0x1000,
  kUnlink,
  kSend,
  kReceive,
  kNotify,
  kStat,
  kLookUp,
  kList,
  kChange,
  kPoll,
  kUse,
  kDrop,
};
inline bool is_about_posix_queues(int number) {
  return number >= static_cast<int>(PosixQueueOp::kOpen) &&
         number <= static_cast<int>(PosixQueueOp::kDrop);
}

struct PosixQueueLimits {
  uint64_t most_bytes = 0;  // RLIMIT_MSGQUEUE of the caller
};
static_assert(sizeof(PosixQueueLimits) == 8);

struct PosixQueueState {
  int64_t most_messages = 0, message_bytes = 0, messages = 0;
  int64_t bytes = 0;  // of all messages
  uint32_t mode = 0, uid = 0, gid = 0, links = 0;
  int32_t notify = 0, notify_signal = 0, notify_pid = 0, padding = 0;
  int64_t accessed_s = 0, modified_s = 0, changed_s = 0;
};
static_assert(sizeof(PosixQueueState) == 88);

// "A message has come to the empty queue", for a process of `node` that asked to be told.
struct PosixQueueNotice {
  NodeId node;
  int64_t queue = 0;
  pid_t process = 0;
  int how = 0, signal = 0;
  int64_t value = 0;
  pid_t sender = 0;
  uid_t sender_uid = 0;
};

class PosixQueues {
 public:
  // Linux's defaults, and its limits for the privileged (mq_overview(7)); a message of more than
  // 1 MiB is nobody's here.
  static constexpr size_t kMostQueues = 256;
  static constexpr int64_t kMessages = 10, kMessageBytes = 8192, kMostMessages = 10;
  static constexpr int64_t kMostMessagesEver = 65536, kMostMessageBytesEver = 1 << 20;
  static constexpr int64_t kMostPriority = 32768;

  // `first`: so that another node that takes over does not hand out the same numbers.
  explicit PosixQueues(int64_t first = 1) : next_(first) {}

  IpcDones step(const IpcCall& call);
  // Takes a waiting call out: its ticket's caller waits no longer. False when it does not wait.
  bool cancel(const IpcTicket& ticket);
  void node_failed(NodeId node);
  // A heading, and a line for each that there is, unlinked ones too.
  std::string text() const;
  // Wants to hear of no queue any more.
  void process_ended(pid_t process);
  // A message, as kReceive told it, whose receiver died waiting: the next one of its priority.
  IpcDones give_back(int64_t queue, std::string_view message);

  // For checkpoints (saved_objects.cpp): those that are taken or `held`, and their numbers. Errors:
  // those of `takes`; ENOTSUP: a process is to be told of the next message.
  Status save(const TakesIpc& takes, const std::set<int64_t>& held, SavedIpc& into,
              std::vector<int64_t>& numbers);
  // Made again, in place of one of the same name; its number. `node` uses it.
  int64_t restore(const SavedPosixQueue& saved, NodeId node);
  void drop(const SavedPosixQueue& saved);

  // What step() and give_back() have brought besides answers; empty afterwards.
  std::vector<PosixQueueNotice> take_notices() { return std::exchange(notices_, {}); }
  // Nodes that wait for a change of a queue which has come.
  std::vector<std::pair<NodeId, int64_t>> take_changes() { return std::exchange(changes_, {}); }

 private:
  struct Message {
    uint32_t priority = 0;
    std::string text;
  };
  struct Listener {
    NodeId node;
    pid_t process = 0;
    int how = 0, signal = 0;
    int64_t value = 0;
  };
  struct Queue {
    std::string name;  // empty: unlinked
    IpcPermissions permissions;
    int64_t most_messages = 0, message_bytes = 0, bytes = 0;
    std::list<Message> messages;  // as they are to be received
    std::list<IpcCall> senders, receivers;
    std::optional<Listener> listener;
    std::map<NodeId, int64_t> uses;
    std::vector<NodeId> watchers;
    int64_t accessed_s = 0, modified_s = 0, changed_s = 0;
    int64_t charged() const;
    bool is_full() const { return static_cast<int64_t>(messages.size()) >= most_messages; }
  };
  using Queues = std::map<int64_t, Queue>;

  IpcDone open(const IpcCall& call);
  IpcDone create(const IpcCall& call, const PosixQueueLimits& limits, std::string_view name);
  IpcDone unlink(const IpcCall& call);
  IpcDones step_on(const IpcCall& call, Queues::iterator found);
  IpcDones send(const IpcCall& call, Queues::iterator found);
  IpcDones receive(const IpcCall& call, Queues::iterator found);
  IpcDone notify(const IpcCall& call, Queue& queue);
  IpcDone change(const IpcCall& call, Queue& queue);
  IpcDone list(const IpcCall& call) const;
  IpcDone use(const IpcCall& call, Queue& queue);
  Queues::iterator find_name(std::string_view name);
  // Hands it to the first that waits, or queues it; true when it was queued.
  bool put(Queue& queue, Message message, IpcDones& done, bool first = false);
  void tell_listener(int64_t number, Queue& queue, const IpcCaller& sender);
  IpcDone take_first(Queue& queue, const IpcCall& call);
  void changed(int64_t number, Queue& queue);
  void drop_if_unused(Queues::iterator found);
  static IpcDone state_of(const IpcCall& call, const Queue& queue, int64_t value);

  Queues queues_;
  int64_t next_;
  std::vector<PosixQueueNotice> notices_;
  std::vector<std::pair<NodeId, int64_t>> changes_;
};

}  // namespace krg
