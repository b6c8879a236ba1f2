// PosixQueueListeners: the processes of this node that asked by mq_notify(3) to be told of a
// message: sends them the signal, or wakes the C library's thread that waits at a netlink socket.
//
// Owner: Ipc. Threads: the loop's thread.
// Source: mq_notify(2), ipc/mqueue.c; glibc's mq_notify for SIGEV_THREAD.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <csignal>
#include <functional>
#include <map>
#include <string>

#include "ipc_messages.h"
#include "krg/procmgr/session_fs.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class PosixQueueListeners {
 public:
  // `forget(queue, process)`: it wants to hear no more.
  using Forget = std::function<void(int64_t queue, pid_t process)>;
  PosixQueueListeners(NodeContext& node, SessionFs& fs, Forget forget);

  // What SIGEV_THREAD needs: a line to the socket `event.sigev_signo` of the process, and the
  // cookie that is to be sent there. Errors: EBADF; ENOSYS where the network namespace is not ours.
  struct Line {
    UniqueFd socket;
    std::string cookie;
  };
  static Result<Line> line_to(pid_t tid, int socket, std::string cookie);

  void add(int64_t queue, pid_t process, Line line);
  // Forgets those that have closed it, which ends their registration.
  void released(int64_t queue);
  void process_ended(pid_t process);

 private:
  void tell(const ipc_messages::QueueNotice& notice);
  bool has_open(pid_t process, int64_t queue) const;

  SessionFs& fs_;
  Forget forget_;
  std::map<std::pair<int64_t, pid_t>, Line> lines_;
};

}  // namespace krg
