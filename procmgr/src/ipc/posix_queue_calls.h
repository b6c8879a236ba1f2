// PosixQueueCalls: mq_open(2) and its kin of this node's programs, answered by the queues' home. A
// queue's descriptor is an open file of PosixQueueTree, which says which queue it is.
//
// Owner: Ipc. Threads: the loop's thread; files are opened by a worker. Without krgfs the calls are
// left to this node's kernel. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "posix_queue_listeners.h"
#include "posix_queue_tree.h"

namespace krg {

class PosixQueueCalls {
 public:
  // Registers their handlers and the tree. REQUIRES: before fs.serve().
  PosixQueueCalls(NodeContext& node, SyscallBroker& broker, SessionFs& fs, SystemVCalls& home,
                  ExitWatch& exits);
  PosixQueueCalls(const PosixQueueCalls&) = delete;
  PosixQueueCalls& operator=(const PosixQueueCalls&) = delete;

  // A new open file of a queue. `root`: of the session's files. In a worker. Errors: of open(2).
  static Result<UniqueFd> open_file(int root, int64_t queue, int flags);

  void process_ended(pid_t process) { listeners_.process_ended(process); }

 private:
  using Call = SyscallBroker::Call;
  // A descriptor of a caller that is a queue's.
  struct Opened {
    int64_t queue = 0;
    UniqueFd copy;
    int flags = 0;  // F_GETFL
    bool may_read() const;
    bool may_write() const;
  };
  // Carries a call out; an errno value, or 0.
  using Handler = int (PosixQueueCalls::*)(Call& call, const IpcCaller& caller);
  void on_call(Handler handler, Call call);
  int open(Call& call, const IpcCaller& caller);
  int unlink(Call& call, const IpcCaller& caller);
  int send(Call& call, const IpcCaller& caller);
  int receive(Call& call, const IpcCaller& caller);
  int notify(Call& call, const IpcCaller& caller);
  int attributes(Call& call, const IpcCaller& caller);
  Result<Opened> opened(const Call& call) const;
  void give_descriptor(Call call, int64_t queue, int flags);
  void ask(Call& call, const IpcCaller& caller, PosixQueueOp op, IpcShape shape);
  void let_go(int64_t queue);
  void forget_listener(int64_t queue, pid_t process);

  NodeContext& node_;
  SessionFs& fs_;
  SystemVCalls& home_;
  ExitWatch& exits_;
  PosixQueueListeners listeners_;
  PosixQueueTree tree_;
};

}  // namespace krg
