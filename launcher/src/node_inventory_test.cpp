// The inventory against the machine's own figures, and over two nodes of which one dies.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "node_inventory.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>

#include "kradm_nodes.h"
#include "krg/runtime/loopback_transport.h"

namespace krg {
namespace {

using namespace std::chrono_literals;

unsigned allowed_processors() {
  cpu_set_t set;
  EXPECT_EQ(::sched_getaffinity(0, sizeof set, &set), 0);
  return static_cast<unsigned>(CPU_COUNT(&set));
}

TEST(MeasureHardware, AgreesWithTheKernel) {
  const auto hardware = measure_hardware();
  ASSERT_TRUE(hardware) << hardware.error().message();
  EXPECT_EQ(hardware->processors, allowed_processors());
  EXPECT_GE(hardware->cores, 1u);
  EXPECT_LE(hardware->cores, hardware->processors);
  EXPECT_GE(hardware->sockets, 1u);
  struct sysinfo kernel {};
  ASSERT_EQ(::sysinfo(&kernel), 0);
  EXPECT_EQ(hardware->memory_bytes, kernel.totalram * kernel.mem_unit);
  ASSERT_FALSE(hardware->numa.empty());
  unsigned processors = 0;
  for (const NumaNode& node : hardware->numa) {
    processors += node.processors;
    EXPECT_GT(node.memory_bytes, 0u);
    EXPECT_LE(node.memory_bytes, hardware->memory_bytes);
  }
  EXPECT_EQ(processors, hardware->processors);
}

TEST(MeasureHardware, CountsOnlyTheProcessorsThatItIsBoundTo) {
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  const auto hardware = measure_hardware();
  ::sched_setaffinity(0, sizeof before, &before);
  ASSERT_TRUE(hardware);
  EXPECT_EQ(hardware->processors, 1u);
}

// A node as krgd has it, as far as the inventory needs it.
struct Node {
  Node(EventLoop& loop, LoopbackFabric& fabric, unsigned id)
      : messenger(fabric.node(NodeId{static_cast<uint16_t>(id)})),
        workers(loop, 1),
        context{loop,      workers,
                messenger, NodeId{static_cast<uint16_t>(id)},
                2,         PidRange(NodeId{static_cast<uint16_t>(id)}, 2),
                {}},
        control(loop, ::getuid()),
        inventory(context, control,
                  {.state = [this](NodeId node) { return states.at(node.value); },
                   .processes = [this] { return processes; }}) {}

  Messenger messenger;
  WorkerPool workers;
  NodeContext context;
  ControlServer control;
  std::vector<NodeState> states{NodeState::kOnline, NodeState::kOnline};
  size_t processes = 0;
  NodeInventory inventory;
};

class InventoryOfTwo : public testing::Test {
 protected:
  nlohmann::json collect_from_first() {
    nlohmann::json nodes;
    bool done = false;
    first.inventory.collect([&](nlohmann::json answer) {
      nodes = std::move(answer);
      done = true;
    });
    for (int turn = 0; turn < 500 && !done; ++turn) loop.run_once(10ms);
    EXPECT_TRUE(done);
    return nodes;
  }

  EventLoop loop = std::move(*EventLoop::create());
  LoopbackFabric fabric{loop, {.nodes = 2}};
  Node first{loop, fabric, 0};
  Node second{loop, fabric, 1};
};

TEST_F(InventoryOfTwo, NamesEveryNodesHardware) {
  const nlohmann::json nodes = collect_from_first();
  ASSERT_EQ(nodes.size(), 2u);
  for (unsigned i = 0; i < 2; ++i) {
    EXPECT_EQ(nodes[i]["node"], i);
    EXPECT_EQ(nodes[i]["state"], "online");
    EXPECT_EQ(nodes[i]["processors"], allowed_processors());
  }
}

TEST_F(InventoryOfTwo, ADeadNodeIsShownAsFailed) {
  fabric.kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  const nlohmann::json nodes = collect_from_first();
  EXPECT_EQ(nodes[0]["state"], "online");
  EXPECT_EQ(nodes[1]["node"], 1);
  EXPECT_EQ(nodes[1]["state"], "failed");
  EXPECT_FALSE(nodes[1].contains("processors"));
}

TEST_F(InventoryOfTwo, ANodeLeavesAsLongAsItHasProcesses) {
  first.states[1] = NodeState::kPresent;
  second.processes = 3;
  EXPECT_EQ(collect_from_first()[1]["state"], "leaving");
  EXPECT_EQ(collect_from_first()[1]["processes"], 3);
  second.processes = 0;
  const nlohmann::json nodes = collect_from_first();
  EXPECT_EQ(nodes[1]["state"], "present");
  const std::string table = format_nodes(nodes);
  const std::string sum = table.substr(table.rfind("sum"));
  EXPECT_NE(sum.find(" 1 "), std::string::npos) << table;
}

TEST_F(InventoryOfTwo, TheTableShowsTheSumOfWhatIsOnline) {
  fabric.kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  nlohmann::json nodes = collect_from_first();
  nodes[0].update(
      {{"sockets", 3}, {"cores", 12}, {"processors", 24}, {"memory_bytes", 1ull << 33}});
  const std::string table = format_nodes(nodes);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 4) << table;
  EXPECT_NE(table.find("failed"), std::string::npos) << table;
  const std::string sum = table.substr(table.rfind("sum"));
  for (const char* figure : {" 1 ", " 3 ", " 12 ", " 24 ", " 8.0 GiB"})
    EXPECT_NE(sum.find(figure), std::string::npos) << figure << " in " << sum;
}

TEST(KradmNodes, RefusesWhatItDoesNotKnow) {
  EXPECT_EQ(kradm_nodes({}), 2);
  const std::string arguments[] = {"status", "--jason"};
  EXPECT_EQ(kradm_nodes(arguments), 2);
  const std::string unclear[] = {"del", "-a", "-c", "1"};
  EXPECT_EQ(kradm_nodes(unclear), 2);
}

}  // namespace
}  // namespace krg
