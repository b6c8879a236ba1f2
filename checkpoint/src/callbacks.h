// Callbacks: members of an application that asked to be told (libkrg, krg/procmgr/checkpoint.h):
// before a checkpoint, which waits until each has answered, and when it goes on. A program tells
// its krgd by `checkpoint.callbacks`, and keeps that connection; one that is restarted finds it
// closed.
//
//   notices    checkpoint.before, checkpoint.after
//   answer     checkpoint.called
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "applications.h"
#include "krg/runtime/control_server.h"

namespace krg {

class Callbacks : public std::enable_shared_from_this<Callbacks> {
 public:
  Callbacks(NodeContext& node, ControlServer& control, std::shared_ptr<Applications> applications)
      : node_(node), control_(control), applications_(std::move(applications)) {}
  void listen();

  // Has all members of an application called, on all nodes. Errors: ETIMEDOUT: one does not
  // answer. `after` ends what another call has begun, and waits for nobody.
  void call(pid_t root, bool after, std::function<void(Status)> done);

 private:
  struct Member {
    pid_t pid = 0;
    std::function<void(Status)> called;  // while it is waited for
    EventLoop::Timer patience;
  };
  using Connection = ControlServer::ConnectionId;

  void call_here(pid_t root, bool after, const std::function<void(Status)>& done);
  void call_one(Connection connection, bool after, const std::function<void(Status)>& done);
  void answered(Connection connection, const Status& how);

  NodeContext& node_;
  ControlServer& control_;
  std::shared_ptr<Applications> applications_;
  std::map<Connection, Member> members_;
};

}  // namespace krg
