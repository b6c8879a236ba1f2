// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_inventory.h"

#include <hwloc.h>
#include <unistd.h>

#include <memory>

#include "krg/runtime/log.h"

namespace krg {
namespace {

// Request: what hardware do you have? Reply: the JSON text of to_json().
struct HardwareMessage {
  static constexpr uint16_t kId = message_ids::kSession + 8;
  uint8_t version = 1;
};
static_assert(sizeof(HardwareMessage) == 1);

using Topology = std::unique_ptr<hwloc_topology, decltype(&::hwloc_topology_destroy)>;

Result<Topology> load_topology() {
  hwloc_topology_t raw = nullptr;
  if (::hwloc_topology_init(&raw) != 0) return errno_error("hwloc_topology_init");
  Topology topology(raw, &::hwloc_topology_destroy);
  // A virtual node with processors of its own is bound to them.
  ::hwloc_topology_set_flags(
      raw, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING | HWLOC_TOPOLOGY_FLAG_IS_THISSYSTEM);
  if (::hwloc_topology_load(raw) != 0) return errno_error("hwloc_topology_load");
  return topology;
}

unsigned count_objects(const Topology& topology, hwloc_obj_type_t type) {
  const int count = ::hwloc_get_nbobjs_by_type(topology.get(), type);
  return count > 0 ? static_cast<unsigned>(count) : 0;
}

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

// What the nodes have answered so far. Lives until the last of them has.
struct Collection {
  nlohmann::json nodes = nlohmann::json::array();
  unsigned missing = 0;
  std::function<NodeState(NodeId)> state_of;
  std::function<void(nlohmann::json)> done;

  const char* state(NodeId node, const nlohmann::json& entry) const {
    if (state_of(node) == NodeState::kOnline) return "online";
    return entry.value("processes", 0u) > 0 ? "leaving" : "present";
  }

  void add(NodeId node, const Result<std::string>& answer) {
    nlohmann::json entry = nlohmann::json::object();
    if (answer) entry = nlohmann::json::parse(*answer, nullptr, false);
    const bool understood = answer && entry.is_object();
    if (!understood) {
      entry = nlohmann::json::object();
      log_warn("inventory", "node {} did not tell its hardware: {}", node.value,
               answer ? "not understood" : answer.error().message());
    }
    entry["node"] = node.value;
    entry["state"] = understood ? state(node, entry) : "failed";
    nodes[node.value] = std::move(entry);
    if (--missing == 0) done(std::move(nodes));
  }
};

}  // namespace

Result<NodeHardware> measure_hardware() {
  auto topology = load_topology();
  if (!topology) return topology.error();
  NodeHardware hardware;
  hardware.host = host_name();
  hardware.sockets = count_objects(*topology, HWLOC_OBJ_PACKAGE);
  hardware.cores = count_objects(*topology, HWLOC_OBJ_CORE);
  hardware.processors = count_objects(*topology, HWLOC_OBJ_PU);
  for (hwloc_obj_t object = nullptr;
       (object = ::hwloc_get_next_obj_by_type(topology->get(), HWLOC_OBJ_NUMANODE, object));) {
    const uint64_t memory_bytes = object->attr->numanode.local_memory;
    const int processors = ::hwloc_bitmap_weight(object->cpuset);
    hardware.numa.push_back(
        {object->os_index, processors > 0 ? static_cast<unsigned>(processors) : 0, memory_bytes});
  }
  // Not the sum over the NUMA nodes: memory that was plugged in while the machine runs is not
  // always counted there (seen on 6.18: node0/meminfo stays at the size of the boot).
  hardware.memory_bytes = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) *
                          static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return hardware;
}

nlohmann::json to_json(const NodeHardware& hardware) {
  nlohmann::json numa = nlohmann::json::array();
  for (const NumaNode& node : hardware.numa)
    numa.push_back({{"index", node.index},
                    {"processors", node.processors},
                    {"memory_bytes", node.memory_bytes}});
  return {{"host", hardware.host},
          {"sockets", hardware.sockets},
          {"cores", hardware.cores},
          {"processors", hardware.processors},
          {"memory_bytes", hardware.memory_bytes},
          {"numa", std::move(numa)}};
}

NodeInventory::NodeInventory(NodeContext& node, ControlServer& control, Sources sources)
    : node_(node), sources_(std::move(sources)) {
  node_.messenger.on_request<HardwareMessage>(
      [this](NodeId, const HardwareMessage&, std::string_view, Messenger::Reply reply) {
        auto measured = std::make_shared<Result<NodeHardware>>(errno_error("", ECANCELED));
        auto answer = std::make_shared<Messenger::Reply>(std::move(reply));
        node_.workers.submit([measured] { *measured = measure_hardware(); },
                             [this, measured, answer] {
                               if (!*measured)
                                 return answer->fail(EIO, measured->error().message());
                               nlohmann::json entry = to_json(**measured);
                               entry["processes"] = sources_.processes();
                               answer->ok(entry.dump());
                             });
      });
  control.add_command("nodes.status", [this](ControlServer::Request, ControlServer::Reply reply) {
    auto answer = std::make_shared<ControlServer::Reply>(std::move(reply));
    collect([answer](nlohmann::json nodes) { answer->ok({{"nodes", std::move(nodes)}}); });
  });
}

void NodeInventory::collect(std::function<void(nlohmann::json)> done) {
  auto collection = std::make_shared<Collection>();
  collection->missing = node_.node_count;
  collection->nodes = nlohmann::json::array_t(node_.node_count);
  collection->state_of = sources_.state;
  collection->done = std::move(done);
  for (unsigned i = 0; i < node_.node_count; ++i) {
    const NodeId node{static_cast<uint16_t>(i)};
    node_.messenger.request(
        node, HardwareMessage{}, {},
        [collection, node](const Result<std::string>& answer) { collection->add(node, answer); });
  }
}

}  // namespace krg
