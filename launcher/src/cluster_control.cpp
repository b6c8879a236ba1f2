// SPDX-License-Identifier: GPL-2.0-or-later
#include "cluster_control.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>

#include "krg/runtime/log.h"
#include "session_messages.h"

namespace krg {

using nlohmann::json;

namespace {
constexpr NodeId kFirstNode{0};
// A node that does not answer a shutdown is not waited for longer.
constexpr std::chrono::seconds kShutdownLimit{2};
constexpr std::chrono::milliseconds kAnswerTime{20};
}  // namespace

ClusterControl::ClusterControl(NodeContext& node, ControlServer& control, JobTable& jobs,
                               std::string cluster_dir)
    : node_(node), jobs_(jobs), cluster_dir_(std::move(cluster_dir)) {
  using Request = ControlServer::Request;
  using Reply = ControlServer::Reply;
  control.add_command("cluster.status", [this](Request, Reply reply) {
    json failed = json::array();
    for (uint16_t peer = 0; peer < node_.node_count; ++peer)
      if (node_.messenger.is_failed(NodeId{peer})) failed.push_back(peer);
    reply.ok({{"name", std::filesystem::path(cluster_dir_).filename().string()},
              {"node", node_.self.value},
              {"nodes", node_.node_count},
              {"failed", failed},
              {"ready", ready_.size()},
              {"jobs", jobs_.describe()}});
  });
  control.add_command("cluster.shutdown", [this](Request, Reply reply) {
    reply.ok();
    shut_down("asked by a control command");
  });
  node.messenger.on<NodeReadyMessage>(
      [this](NodeId from, const NodeReadyMessage&, std::string_view) { count_ready(from); });
  node.messenger.on_request<ShutdownMessage>(
      [this](NodeId from, const ShutdownMessage&, std::string_view, Messenger::Reply reply) {
        reply.ok();
        log_info("cluster", "shut down by node {}", from.value);
        // The answer is on its way before the loop ends.
        last_resort_ = node_.loop.after(kAnswerTime, [this] { leave("told to"); });
      });
  node.messenger.on_peer_failure([this](NodeId peer) { peer_failed(peer); });
}

void ClusterControl::node_is_ready() {
  if (node_.self == kFirstNode) return count_ready(kFirstNode);
  if (auto sent = node_.messenger.send(kFirstNode, NodeReadyMessage{}); !sent)
    log_error("cluster", "node 0 cannot be told that this node is ready: {}",
              sent.error().message());
}

void ClusterControl::count_ready(NodeId node) {
  if (ready_.insert(node).second && ready_.size() == node_.node_count) report_ready();
}

void ClusterControl::report_ready() {
  log_info("cluster", "all {} nodes are ready", node_.node_count);
  auto socket = connect_seqpacket(cluster_dir_ + "/boot.sock");
  if (!socket) return log_error("cluster", "nobody waits for us: {}", socket.error().message());
  owner_ = std::move(*socket);
  if (auto sent = send_packet(owner_.get(), json{{"ready", true}}.dump()); !sent)
    return shut_down("the owner has gone");
  watch_owner();
}

// The owner says {"keep": true} when the cluster is to outlive it (kradm cluster start).
void ClusterControl::watch_owner() {
  auto watch = node_.loop.watch(owner_.get(), EPOLLIN, [this](uint32_t) {
    auto packet = receive_packet(owner_.get());
    const bool keep = packet && !packet->end_of_stream &&
                      json::parse(packet->bytes, nullptr, false).value("keep", false);
    owner_watch_.reset();
    owner_.reset();
    if (!keep) shut_down("the owner has gone");
  });
  if (watch) owner_watch_ = std::move(*watch);
}

void ClusterControl::shut_down(std::string_view why) {
  if (shutting_down_) return;
  shutting_down_ = true;
  log_info("cluster", "shutting down: {}", why);
  last_resort_ = node_.loop.after(kShutdownLimit, [this] { leave("not all nodes answered"); });
  // Leaves when the last node's answer, or its failure, lets go of it.
  std::shared_ptr<void> all_told(nullptr, [this](void*) { leave("all nodes know"); });
  for (uint16_t peer = 0; peer < node_.node_count; ++peer) {
    if (NodeId{peer} == node_.self || node_.messenger.is_failed(NodeId{peer})) continue;
    node_.messenger.request(NodeId{peer}, ShutdownMessage{}, {},
                            [all_told](Result<std::string>) {});
  }
}

void ClusterControl::peer_failed(NodeId peer) {
  log_error("cluster", "node {} has failed", peer.value);
  if (peer == kFirstNode) leave("node 0 has failed");
}

// krgd is its session's init: the kernel ends the session's processes with it.
void ClusterControl::leave(std::string_view why) {
  log_info("cluster", "leaving: {}", why);
  node_.loop.stop();
}

}  // namespace krg
