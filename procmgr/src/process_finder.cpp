// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_finder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <utility>

namespace krg {
namespace {

// Asks a node for its processes; the reply's payload is encode()d.
struct FindRequest {
  static constexpr uint16_t kId = message_ids::kPlacement + 1;
  uint8_t version = 1;
};

// Entries of one answer: a packet of the control socket holds kMaxPacketBytes.
constexpr size_t kPageEntries = 1000;

using Found = ProcessFinder::Found;

nlohmann::json as_json(const std::vector<Found>& processes) {
  nlohmann::json list = nlohmann::json::array();
  for (const Found& found : processes) {
    list.push_back({{"pid", found.pid.value},
                    {"node", found.node.value},
                    {"host", found.host},
                    {"command", found.command}});
    for (const auto& [tid, node] : found.threads)
      list.back()["threads"].push_back({{"tid", tid}, {"node", node.value}});
  }
  return list;
}

std::string encode(const std::vector<Found>& processes) {
  // Command names may hold any byte.
  return as_json(processes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<Found> decode(std::string_view bytes) {
  std::vector<Found> processes;
  nlohmann::json list = nlohmann::json::parse(bytes, nullptr, false);
  if (!list.is_array()) return processes;
  for (const nlohmann::json& entry : list) {
    if (!entry.is_object()) continue;
    processes.push_back({GlobalPid{entry.value("pid", 0)},
                         NodeId{entry.value("node", kNoNode.value)}, entry.value("host", ""),
                         entry.value("command", "")});
    for (const nlohmann::json& thread : entry.value("threads", nlohmann::json::array()))
      if (thread.is_object())
        processes.back().threads[thread.value("tid", 0)] =
            NodeId{thread.value("node", kNoNode.value)};
  }
  return processes;
}

std::string command_of(pid_t pid) {
  UniqueFd comm(open(fmt::format("/proc/{}/comm", pid).c_str(), O_RDONLY | O_CLOEXEC));
  char text[64];
  ssize_t length = comm ? read(comm.get(), text, sizeof text) : 0;
  if (length <= 0) return "";
  if (text[length - 1] == '\n') --length;
  return {text, static_cast<size_t>(length)};
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

// What one find_all() still waits for.
struct Gathering {
  std::vector<Found> found;
  unsigned pending = 1;
  std::function<void(std::vector<Found>)> done;

  void finish_one() {
    if (--pending > 0) return;
    std::sort(found.begin(), found.end(),
              [](const Found& a, const Found& b) { return a.pid < b.pid; });
    // One that is moving just now stands on two nodes.
    const auto same = [](const Found& a, const Found& b) { return a.pid == b.pid; };
    found.erase(std::unique(found.begin(), found.end(), same), found.end());
    done(std::move(found));
  }
};

}  // namespace

ProcessFinder::ProcessFinder(NodeContext& node, LocalProcesses local_processes,
                             ThreadsOf threads_of)
    : node_(node),
      local_processes_(std::move(local_processes)),
      threads_of_(std::move(threads_of)),
      host_(host_name()) {
  node_.messenger.on_request<FindRequest>(
      [this](NodeId, const FindRequest&, std::string_view, Messenger::Reply reply) {
        reply.ok(encode(find_local()));
      });
}

void ProcessFinder::add_commands(ControlServer& server) {
  server.add_command("where", [this](ControlServer::Request request, ControlServer::Reply reply) {
    pid_t after = request.arguments.value("after", 0);
    auto answer = std::make_shared<ControlServer::Reply>(std::move(reply));
    find_all([after, answer](std::vector<Found> all) {
      std::erase_if(all, [after](const Found& found) { return found.pid.value <= after; });
      bool more = all.size() > kPageEntries;
      if (more) all.resize(kPageEntries);
      answer->ok({{"processes", as_json(all)}, {"more", more}});
    });
  });
}

void ProcessFinder::find_all(std::function<void(std::vector<Found>)> done) {
  auto gathering = std::make_shared<Gathering>();
  gathering->done = std::move(done);
  for (uint16_t i = 0; i < node_.node_count; ++i) {
    NodeId peer{i};
    if (peer == node_.self || node_.messenger.is_failed(peer)) continue;
    ++gathering->pending;
    node_.messenger.request(peer, FindRequest{}, {}, [gathering](Result<std::string> reply) {
      if (reply) {
        std::vector<Found> there = decode(*reply);
        std::move(there.begin(), there.end(), std::back_inserter(gathering->found));
      }
      gathering->finish_one();
    });
  }
  std::vector<Found> here = find_local();
  std::move(here.begin(), here.end(), std::back_inserter(gathering->found));
  gathering->finish_one();
}

std::vector<Found> ProcessFinder::find_local() const {
  std::vector<Found> found;
  for (pid_t pid : local_processes_())
    found.push_back({GlobalPid{pid}, node_.self, host_, command_of(pid),
                     threads_of_ ? threads_of_(pid) : std::map<pid_t, NodeId>{}});
  return found;
}

}  // namespace krg
