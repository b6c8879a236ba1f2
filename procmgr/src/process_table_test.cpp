// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_table.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <optional>

#include "krg/shmem/kddm.h"
#include "process_places.h"
#include "testing/loopback_nodes.h"

namespace krg {
namespace {

using testing::LoopbackNodes;

Result<NodeId> locate(LoopbackNodes& nodes, ProcessTable& table, pid_t pid) {
  std::optional<Result<NodeId>> found;
  table.locate(GlobalPid{pid}, [&](Result<NodeId> where) { found = std::move(where); });
  nodes.run_until([&] { return found.has_value(); });
  return found.value_or(errno_error("no answer", ETIMEDOUT));
}

TEST(ProcessTable, TellsWhereAProcessExecutes) {
  LoopbackNodes nodes(3);
  ProcessTable zero(nodes[0]), one(nodes[1]), two(nodes[2]);
  const pid_t born_on_one = nodes[1].pids.first() + 7;
  one.add_shadow(born_on_one, {NodeId{2}, JobId{}});
  two.add_body(born_on_one, {NodeId{1}, JobId{}, born_on_one, born_on_one});
  for (ProcessTable* asked : {&zero, &one, &two})
    EXPECT_EQ(locate(nodes, *asked, born_on_one).value_or(NodeId{9}), NodeId{2});
  one.remove_shadow(born_on_one);
  EXPECT_EQ(locate(nodes, zero, nodes[1].pids.end() - 1).error().errno_or(0), ESRCH);
  EXPECT_EQ(locate(nodes, zero, 0).error().errno_or(0), ESRCH);
}

// Three nodes whose tables keep a KDDM set.
struct CoherentTables {
  LoopbackNodes nodes{3};
  Kddm kddm[3]{Kddm(nodes[0].messenger), Kddm(nodes[1].messenger), Kddm(nodes[2].messenger)};
  ProcessTable zero{nodes[0], &kddm[0]}, one{nodes[1], &kddm[1]}, two{nodes[2], &kddm[2]};
  const pid_t born_on_one = nodes[1].pids.first() + 7;

  bool has_copy(int node) const {
    return !kddm[node].find(kProcessPlaces, ObjectId{static_cast<uint64_t>(born_on_one)}).empty();
  }
  // Node 0 asks where it is; then it has a copy of that.
  NodeId ask() {
    const auto where = locate(nodes, zero, born_on_one).value_or(NodeId{9});
    nodes.run_until([&] { return has_copy(0); });
    return where;
  }
  // Whether node 0 knows without asking, and what.
  std::optional<NodeId> at_once() {
    const auto found = std::make_shared<std::optional<NodeId>>();  // the answer may come later
    zero.locate(GlobalPid{born_on_one}, [found](Result<NodeId> where) {
      if (where) *found = *where;
    });
    return *found;
  }
};

TEST(ProcessTable, WhoHasAskedOnceKnowsUntilTheProcessMoves) {
  CoherentTables t;
  t.one.add_shadow(t.born_on_one, {NodeId{2}, JobId{}});
  EXPECT_EQ(t.at_once(), std::nullopt);
  EXPECT_EQ(t.ask(), NodeId{2});
  EXPECT_EQ(t.at_once(), NodeId{2});

  t.one.add_shadow(t.born_on_one, {NodeId{0}, JobId{}});
  bool is_known = false;
  t.one.when_known(t.born_on_one, [&] { is_known = true; });
  EXPECT_FALSE(is_known) << "node 0 has a copy";
  ASSERT_TRUE(t.nodes.run_until([&] { return is_known; }));
  EXPECT_FALSE(t.has_copy(0));
  EXPECT_EQ(t.ask(), NodeId{0});

  t.one.remove_shadow(t.born_on_one);
  is_known = false;
  t.one.when_known(t.born_on_one, [&] { is_known = true; });
  ASSERT_TRUE(t.nodes.run_until([&] { return is_known; }));
  EXPECT_FALSE(t.has_copy(0));
  is_known = false;
  t.one.when_known(t.born_on_one, [&] { is_known = true; });
  EXPECT_TRUE(is_known) << "nothing is under way";
}

TEST(ProcessTable, TheLastOfManyMovesIsWhatOthersFind) {
  CoherentTables t;
  t.one.add_shadow(t.born_on_one, {NodeId{2}, JobId{}});
  ASSERT_EQ(t.ask(), NodeId{2});
  t.one.add_shadow(t.born_on_one, {NodeId{0}, JobId{}});
  t.one.remove_shadow(t.born_on_one);
  t.one.add_shadow(t.born_on_one, {NodeId{0}, JobId{}});
  bool is_known = false;
  t.one.when_known(t.born_on_one, [&] { is_known = true; });
  ASSERT_TRUE(t.nodes.run_until([&] { return is_known; }));
  EXPECT_EQ(t.ask(), NodeId{0});
}

TEST(ProcessTable, CopiesOfADeadHomeAreOfNoUse) {
  CoherentTables t;
  t.one.add_shadow(t.born_on_one, {NodeId{2}, JobId{}});
  ASSERT_EQ(t.ask(), NodeId{2});
  t.nodes.fabric().kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  ASSERT_TRUE(t.nodes.run_until([&] { return t.nodes[0].messenger.is_failed(NodeId{1}); }));
  for (Kddm* kddm : {&t.kddm[0], &t.kddm[2]}) kddm->node_died(NodeId{1});
  EXPECT_EQ(locate(t.nodes, t.zero, t.born_on_one).error().errno_or(0), EHOSTDOWN);
  EXPECT_TRUE(t.nodes.run_until([&] { return !t.has_copy(0); }));
}

TEST(ProcessTable, ADeadOriginIsHostDown) {
  LoopbackNodes nodes(2);
  ProcessTable zero(nodes[0]), one(nodes[1]);
  nodes.fabric().kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  EXPECT_EQ(locate(nodes, zero, nodes[1].pids.first() + 7).error().errno_or(0), EHOSTDOWN);
}

TEST(ProcessTable, ListsLocalProcessesWithoutShadows) {
  LoopbackNodes nodes(1);
  ProcessTable table(nodes[0]);
  const pid_t child = fork();
  if (child == 0) {
    pause();
    _exit(0);
  }
  auto listed = [&] {
    auto all = table.local_processes();
    EXPECT_EQ(std::count(all.begin(), all.end(), getpid()), 0) << "krgd is none of them";
    return std::count(all.begin(), all.end(), child) == 1;
  };
  EXPECT_TRUE(listed());
  table.hide(child);  // what a body leaves that has moved on
  EXPECT_FALSE(listed());
  table.add_body(child, {NodeId{0}, JobId{}, 42, 41});
  EXPECT_TRUE(listed()) << "it has come again";
  table.add_shadow(child, {NodeId{0}, JobId{}});
  EXPECT_FALSE(listed());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

TEST(ProcessTable, KnowsAGroupUntilItsLastProcessHasGone) {
  LoopbackNodes nodes(1);
  ProcessTable table(nodes[0]);
  const pid_t member = fork();
  if (member == 0) {
    setpgid(0, 0);
    pause();
    _exit(0);
  }
  setpgid(member, member);  // whichever of the two comes first
  table.add_body(member, {NodeId{0}, JobId{}, 42, 41});
  table.remove_body(member);
  ASSERT_NE(table.find_group(member), nullptr) << "somebody of it lives";
  EXPECT_EQ(table.find_group(member)->virtual_group, 42);
  EXPECT_EQ(table.find_body(member), nullptr);
  kill(member, SIGKILL);
  waitpid(member, nullptr, 0);
  EXPECT_EQ(table.find_group(member), nullptr);
}

}  // namespace
}  // namespace krg
