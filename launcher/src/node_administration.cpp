// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_administration.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

namespace krg {

using nlohmann::json;

// What one command asks for; the nodes before `next` are done.
struct NodeAdministration::Change {
  std::vector<NodeId> nodes;
  bool online = false;
  size_t next = 0;
  ControlServer::Reply reply;
};

//   nodes.set_online {"nodes": [ID, ...], "online": BOOL} -> {} when every living node knows
NodeAdministration::NodeAdministration(const NodeContext& node, Membership& membership,
                                       ControlServer& control)
    : node_count_(node.node_count), membership_(membership) {
  control.add_command("nodes.set_online",
                      [this](ControlServer::Request request, ControlServer::Reply reply) {
                        set_online(request.arguments, std::move(reply));
                      });
}

void NodeAdministration::set_online(const json& arguments, ControlServer::Reply reply) {
  auto change = std::make_shared<Change>(Change{{}, false, 0, std::move(reply)});
  std::vector<unsigned> numbers;
  try {
    arguments.at("online").get_to(change->online);
    arguments.at("nodes").get_to(numbers);
  } catch (const json::exception&) {
    return change->reply.fail(errno_error("nodes.set_online takes nodes and online", EINVAL));
  }
  // All are looked at before the first one changes.
  for (unsigned number : numbers) {
    if (number >= node_count_)
      return change->reply.fail(errno_error(fmt::format("node {}", number), EINVAL));
    const NodeId node{static_cast<uint16_t>(number)};
    if (membership_.state(node) == NodeState::kDead)
      return change->reply.fail(errno_error(fmt::format("node {}", number), EHOSTDOWN));
    if (number == 0 && !change->online)
      return change->reply.fail(errno_error("node 0 stays: programs start there", EBUSY));
    change->nodes.push_back(node);
  }
  go_on(change);
}

void NodeAdministration::go_on(const std::shared_ptr<Change>& change) {
  if (change->next == change->nodes.size()) return change->reply.ok();
  membership_.set_online(change->nodes[change->next], change->online,
                         [this, change](const Status& done) {
                           if (!done) return change->reply.fail(done.error());
                           ++change->next;
                           go_on(change);
                         });
}

}  // namespace krg
