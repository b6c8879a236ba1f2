// Callbacks: members of an application that asked to be told (libkrg, krg/procmgr/checkpoint.h):
// before a checkpoint, which waits until each has answered, and when it goes on. A program tells
// its krgd by `checkpoint.callbacks`, and keeps that connection; one that is restarted finds it
// closed.
//
//   notices    checkpoint.before, checkpoint.after
//   answer     checkpoint.called {left_out: [[address, bytes], ...]}: of its memory, in whole pages
//
// Between the two nobody enters a part in which the application must not be saved
// (CriticalSections): it is waited for those who are in one first.
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "applications.h"
#include "critical_sections.h"
#include "krg/runtime/control_server.h"
#include "left_out_memory.h"

namespace krg {

class Callbacks : public std::enable_shared_from_this<Callbacks> {
 public:
  Callbacks(NodeContext& node, ControlServer& control, std::shared_ptr<Applications> applications,
            std::shared_ptr<LeftOutMemory> left_out)
      : node_(node),
        control_(control),
        applications_(std::move(applications)),
        sections_(std::make_shared<CriticalSections>(node, control, applications_)),
        left_out_(std::move(left_out)) {}
  void listen();

  // Has all members of an application called, on all nodes. Errors: ETIMEDOUT: one does not
  // answer; EAGAIN: CriticalSections'. `after` ends what another call has begun, failed or not, and
  // waits for nobody.
  void call(pid_t root, bool after, std::function<void(Status)> done);

 private:
  struct Member {
    pid_t pid = 0;
    std::function<void(Status)> called;  // while it is waited for
    EventLoop::Timer patience;
    bool has_left_out = false;  // something, as last told
  };
  using Connection = ControlServer::ConnectionId;

  void call_here(pid_t root, bool after, const std::function<void(Status)>& done);
  void note_left_out(const ControlServer::Request& request, std::function<void(Status)> noted);
  void call_one(Connection connection, bool after, const std::function<void(Status)>& done);
  void answered(Connection connection, const Status& how);

  NodeContext& node_;
  ControlServer& control_;
  std::shared_ptr<Applications> applications_;
  std::shared_ptr<CriticalSections> sections_;
  std::shared_ptr<LeftOutMemory> left_out_;
  std::map<Connection, Member> members_;
};

}  // namespace krg
