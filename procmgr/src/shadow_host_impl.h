// What ShadowHost's files share. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "exec_messages.h"
#include "krg/procmgr/shadow_host.h"
#include "krg/runtime/unique_fd.h"
#include "shadow.h"

namespace krg {

// A file that a shadow has open for the sake of locks.
struct ShadowFile {
  static constexpr int kForNoMore = -1;  // for the locks that are there
  dev_t device = 0;
  ino_t inode = 0;
  int access_mode = kForNoMore;
  int number = -1;
};

struct ShadowHost::Impl {
  // A shadow runs or is stopped, which only the kernel knows; it ends with its Shadow.
  struct Hosted {
    std::unique_ptr<Shadow> shadow;
    NodeId body_node;
    bool is_ending = false;     // told to end as its body did
    bool is_returning = false;  // it is about to be the process itself again (shadow_return.cpp)
    std::vector<std::function<void(const ShadowReport&)>> answers;  // that are to come, in order
    EventLoop::Timer settling;                                      // see settle()
    NodeId origin = kNoNode;                                        // of a guardian
    std::vector<NodeId> guardians = {};                             // where it has some
    bool is_told_to_stop = false;                                   // as its body has
    std::vector<ShadowFile> files = {};                             // see shadow_locks.cpp
    bool is_guardian() const { return origin != kNoNode; }
  };

  NodeContext& node;
  ProcessTable& table;
  UniqueFd program;
  std::map<pid_t, Hosted> hosted;
  std::vector<std::function<void(pid_t, const BodyEnd&)>> body_end_listeners;
  std::vector<std::function<void(pid_t)>> shadow_end_listeners;
  std::function<Status(pid_t, const SignalInfo&)> deliver;

  Impl(NodeContext& n, ProcessTable& t) : node(n), table(t) {}

  static std::vector<ShadowFile> files_kept(pid_t pid, const std::vector<int>& numbers);
  Hosted* find(pid_t pid) {
    auto found = hosted.find(pid);
    return found == hosted.end() ? nullptr : &found->second;
  }
  bool executes_on(pid_t pid, NodeId where) {
    const Hosted* shadow = find(pid);
    return shadow && shadow->body_node == where;
  }
  void listen();
  Shadow::Events events_of(pid_t pid);
  Status host(pid_t pid, ProcessTable::Shadow entry, Result<std::unique_ptr<Shadow>> shadow);
  void on_report(pid_t pid, const ShadowReport& report);
  void on_group_answer(pid_t pid, NodeId body_node, int32_t result);
  void on_shadow_end(pid_t pid);
  void pass_signal_on(pid_t pid, const SignalInfo& info, int tries);
  void take_signal(pid_t pid, const SignalInfo& info, std::shared_ptr<Messenger::Reply> reply,
                   int looks);
  void send_signal(GlobalPid to, const SignalInfo& info, int tries,
                   std::function<void(Status)> done);
  void on_body_moved(const exec_messages::BodyMoves& moves);
  void on_guardian_follows(const exec_messages::GuardianFollows& follows);
  // Of one that has gone, or is the process itself again.
  void forget(pid_t pid);
  void on_body_ended(const exec_messages::BodyEnded& ended);
  void on_body_stopped(const exec_messages::BodyStopped& stopped);
  void on_peer_failure(NodeId peer);
  void on_group_changed(const exec_messages::GroupChanged& changed);

  void end_like(Hosted& shadow, int wait_status);
  void settle(pid_t pid, int tries);
  void settle_soon(pid_t pid, int tries);  // REQUIRES: it is hosted
  void forward(NodeId to, pid_t pid, const SignalInfo& info, std::function<void(Status)> done);
  void change_group(const exec_messages::SetGroup& change, std::function<void(Status)> done);
  void wait_for_child(const exec_messages::WaitForChild& wait, Messenger::Reply reply);
  void release_guardian(pid_t pid, Messenger::Reply reply);
  void answer_when_gone(pid_t pid, std::shared_ptr<Messenger::Reply> reply);
  Status came_home(pid_t pid);
  void request_change(GlobalPid body, const exec_messages::SetGroup& change,
                      std::function<void(Status)> done);
};

}  // namespace krg
