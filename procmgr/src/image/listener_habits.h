// ListenerHabits: whether the children that a process forks to serve a connection each, which it
// has accepted, close the listening sockets that they have from it; and whether children close its
// epoll instances, timerfds and masters of terminals, its node's. It costs each connection a
// question to another node where such a socket has gone along; where such children have all closed
// theirs at once, the next one gets something in its place that says so (ENOTSOCK) to who uses it
// all the same. Children without a connection are there to accept some themselves: nothing is
// learnt of them, nor done to them.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <vector>

#include "image/frozen_process.h"

namespace krg {

struct ListeningFd {
  int number = -1;
  bool close_on_exec = false;
};
struct ServerSockets {
  std::vector<ListeningFd> listening;
  std::vector<ListeningFd> events;  // epoll instances, timerfds, masters of terminals
  bool has_connection = false;      // that came in by one of them
};
// Of a process of this node; none of one that has ended, or may not be looked at.
ServerSockets server_sockets(pid_t pid);
// /dev/null stands there from now on. Errors: of open(2) in the process.
Status replace_by_null(FrozenProcess& process, const std::vector<ListeningFd>& fds);

class ListenerHabits {
 public:
  enum class Of { kListeners, kEvents };
  explicit ListenerHabits(Of of = Of::kListeners) : of_(of) {}

  enum class Expects { kNothing, kClosed, kKept };
  Expects expects(pid_t forker) const;
  // A child had some of them at its fork: whether it has any now. Nothing is learnt of one
  // that has ended. False: it still has some, and it is too early to say that it keeps them.
  bool look_at(pid_t forker, pid_t child, bool is_last_look);

 private:
  static constexpr int kSure = 2;
  struct Seen {
    uint64_t start_time = 0;  // of the forker
    int closed = 0;           // children in turn
    bool kept = false;        // any child: never again
  };
  const Of of_;
  std::map<pid_t, Seen> seen_;
};

}  // namespace krg
