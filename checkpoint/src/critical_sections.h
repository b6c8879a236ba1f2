// CriticalSections: parts of programs in which their application must not be saved (libkrg,
// cr_disable() to cr_enable()). A checkpoint closes them on all nodes: it waits until the
// application's processes have left theirs, and nobody enters one until it opens them again.
//
// A process is in one as long as the connection by which it said so (`checkpoint.disable`, no
// arguments; answered when it may go on) lives and has not said `checkpoint.enable`.
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "applications.h"
#include "krg/runtime/control_server.h"

namespace krg {

class CriticalSections : public std::enable_shared_from_this<CriticalSections> {
 public:
  CriticalSections(NodeContext& node, ControlServer& control,
                   std::shared_ptr<Applications> applications)
      : node_(node), control_(control), applications_(std::move(applications)) {}
  void listen();

  // This node's sections of an application; `leader`: of the checkpoint, with whose node they open
  // again. Errors: EAGAIN: a process stays in its own for 30 seconds; they are open then.
  void close(pid_t root, NodeId leader, std::function<void(Status)> closed);
  void open(pid_t root);

 private:
  using Connection = ControlServer::ConnectionId;
  struct Section {
    pid_t pid = 0;
    pid_t root = 0;           // of its application, as last found
    bool is_entered = false;  // else it waits to be
  };
  struct Closing {
    NodeId leader;
    std::function<void(Status)> closed;  // null: they are
    EventLoop::Timer patience;
    std::vector<std::function<void()>> waiting;  // to enter
  };

  void disable(const ControlServer::Request& request, ControlServer::Reply reply);
  void enter(Connection connection, const std::function<void(Status)>& entered);
  void leave(Connection connection);
  void look_whose(pid_t root);
  pid_t who_is_in(pid_t root) const;
  void check_closed(pid_t root);
  void give_up(pid_t root);

  NodeContext& node_;
  ControlServer& control_;
  std::shared_ptr<Applications> applications_;
  std::map<Connection, Section> sections_;
  std::map<pid_t, Closing> closings_;  // by root
};

}  // namespace krg
