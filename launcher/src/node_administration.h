// NodeAdministration: nodes join and leave the single system while it runs (`kradm nodes add` and
// `del`). A node that leaves takes no new processes from now on; what runs there runs on, for it
// cannot be moved yet. Node 0 stays: programs start there. Command: nodes.set_online.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/runtime/control_server.h"
#include "krg/runtime/membership.h"

namespace krg {

class NodeAdministration {
 public:
  NodeAdministration(const NodeContext& node, Membership& membership, ControlServer& control);
  NodeAdministration(const NodeAdministration&) = delete;
  NodeAdministration& operator=(const NodeAdministration&) = delete;

 private:
  struct Change;
  void set_online(const nlohmann::json& arguments, ControlServer::Reply reply);
  void go_on(const std::shared_ptr<Change>& change);

  const unsigned node_count_;
  Membership& membership_;
};

}  // namespace krg
