// MemberLoads: what a node does for members of restarted families that stand here: it reads their
// pages out of the checkpoint, before they run or while they do.
//
// Threads: the loop's thread; workers read. Owned by the restarts' commands (restarts.cpp).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <utility>

#include "checkpoint_messages.h"
#include "krg/procmgr/node_context.h"
#include "late_members.h"

namespace krg {

class MemberLoads : public std::enable_shared_from_this<MemberLoads> {
 public:
  MemberLoads(NodeContext& node, std::shared_ptr<LateMembers> late)
      : node_(node), late_(std::move(late)) {}

  // Takes the messages LoadPages and AwaitPages.
  void listen();

 private:
  struct Load;
  using LoadPtr = std::shared_ptr<Load>;
  using Key = std::pair<NodeId, uint64_t>;  // who has asked, and LoadPages::load
  void load(NodeId from, const checkpoint_messages::LoadPages& ask, std::string_view payload,
            Messenger::Reply reply);
  void opened(const LoadPtr& load);
  void begin_late(const LoadPtr& load);
  void read_others(const LoadPtr& load);
  void one_less(const LoadPtr& load, const Status& loaded);
  void await(NodeId from, uint64_t number, Messenger::Reply reply);

  NodeContext& node_;
  const std::shared_ptr<LateMembers> late_;
  // Ends of lazy loads: those that are awaited, and those that came before anybody did.
  std::map<Key, Messenger::Reply> awaited_;
  std::map<Key, Status> ended_;
};

}  // namespace krg
