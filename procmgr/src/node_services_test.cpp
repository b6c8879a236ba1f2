// What nodes tell each other about capabilities, whereabouts and load.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>
#include <optional>
#include <thread>

#include "krg/procmgr/capability_service.h"
#include "krg/procmgr/placement.h"
#include "krg/procmgr/process_finder.h"
#include "krg/runtime/control_client.h"
#include "loopback_nodes.h"
#include "slack_tag.h"

namespace krg {
namespace {

constexpr CapabilitySet kChangeAndFork =
    capability_set({Capability::kChangeKerrighedCap, Capability::kDistantFork});

// A process that waits to be killed.
class Sleeper {
 public:
  Sleeper() : pid_(fork()) {
    if (pid_ == 0)
      for (;;) pause();
  }
  ~Sleeper() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  Sleeper(const Sleeper&) = delete;
  Sleeper& operator=(const Sleeper&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

class CapabilityServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (Status tagged = write_slack_tag(process_.pid(), 0); !tagged)
      GTEST_SKIP() << "lacks timer_slack: " << tagged.error().message();
  }
  Result<CapabilitySets> set(const CapabilityChange& change) {
    std::optional<Result<CapabilitySets>> answer;
    near_.set(GlobalPid{process_.pid()}, change,
              [&answer](Result<CapabilitySets> sets) { answer = std::move(sets); });
    EXPECT_TRUE(nodes_.run_until([&] { return answer.has_value(); }));
    return answer ? *answer : Result<CapabilitySets>(text_error("no answer"));
  }

  Sleeper process_;
  LoopbackNodes nodes_{2};
  NodeId where_{1};
  CapabilityTable near_table_{nodes_[0]}, far_table_{nodes_[1]};
  CapabilityService::Locate locate_ = [this](GlobalPid pid,
                                             std::function<void(Result<NodeId>)> done) {
    if (pid.value != process_.pid()) return done(errno_error("no such process", ESRCH));
    done(where_);
  };
  CapabilityService near_{nodes_[0], near_table_, locate_};
  CapabilityService far_{nodes_[1], far_table_, locate_};
};

TEST_F(CapabilityServiceTest, AProcessElsewhereIsChangedThere) {
  Result<CapabilitySets> sets = set({.effective = kChangeAndFork});
  ASSERT_TRUE(sets) << sets.error().message();
  EXPECT_EQ(sets->effective, kChangeAndFork);
  EXPECT_TRUE(far_table_.any_distant_fork());
  EXPECT_FALSE(near_table_.any_distant_fork());
}

TEST_F(CapabilityServiceTest, AProcessHereIsChangedHere) {
  where_ = NodeId{0};
  ASSERT_TRUE(set({.effective = kChangeAndFork}));
  EXPECT_TRUE(near_table_.any_distant_fork());
}

TEST_F(CapabilityServiceTest, RefusalsComeBackWithErrnoAndReason) {
  Result<CapabilitySets> sets = set({.effective = capability_set({Capability::kDebug})});
  ASSERT_FALSE(sets);
  EXPECT_EQ(sets.error().errno_or(0), ENOSYS);
  EXPECT_NE(sets.error().context.find("DEBUG"), std::string::npos) << sets.error().context;
}

TEST_F(CapabilityServiceTest, ADeadNodeIsAnError) {
  nodes_.fabric().kill(NodeId{1}, LoopbackFabric::Death::kNoticed);
  Result<CapabilitySets> sets = set({});
  ASSERT_FALSE(sets);
  EXPECT_EQ(sets.error().errno_or(0), EHOSTDOWN);
}

TEST_F(CapabilityServiceTest, ToolsReachItThroughTheControlSocket) {
  std::string path = testing::TempDir() + "krg_capability_service_" + std::to_string(getpid());
  ControlServer server(nodes_.loop(), getuid());
  near_.add_commands(server);
  ASSERT_TRUE(server.listen(path, 0600));
  auto tool = std::async(std::launch::async, [&]() -> int {
    Result<ControlClient> krgd = ControlClient::connect(path);
    if (!krgd) return 1;
    int pid = process_.pid();
    if (!krgd->call("capset", {{"pid", pid}, {"effective", kChangeAndFork.bits}})) return 2;
    Result<ControlClient::Answer> got = krgd->call("capget", {{"pid", pid}});
    if (!got || got->result["effective"] != kChangeAndFork.bits) return 3;
    Result<ControlClient::Answer> refused =
        krgd->call("capset", {{"pid", pid}, {"effective", 07777}});
    if (refused || refused.error().errno_or(0) != ENOSYS) return 4;
    return krgd->call("capget", {{"pid", "one"}}) ? 5 : 0;
  });
  nodes_.run_until(
      [&] { return tool.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
  EXPECT_EQ(tool.get(), 0);
  unlink(path.c_str());
}

TEST(ProcessFinder, GathersTheProcessesOfAllNodesByPid) {
  LoopbackNodes nodes(3);
  Sleeper first, second;
  ProcessFinder near(nodes[0], [&] { return std::vector<pid_t>{second.pid()}; });
  ProcessFinder far(nodes[1], [&] { return std::vector<pid_t>{first.pid()}; });
  ProcessFinder dead(nodes[2], [] { return std::vector<pid_t>{99}; });
  nodes.fabric().kill(NodeId{2}, LoopbackFabric::Death::kNoticed);
  std::vector<ProcessFinder::Found> found;
  near.find_all([&](std::vector<ProcessFinder::Found> all) { found = std::move(all); });
  ASSERT_TRUE(nodes.run_until([&] { return !found.empty(); }));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].pid.value, first.pid());
  EXPECT_EQ(found[0].node, NodeId{1});
  EXPECT_EQ(found[1].pid.value, second.pid());
  EXPECT_EQ(found[1].node, NodeId{0});
  EXPECT_EQ(found[0].command.substr(0, 13), "node_services");
}

class LeastLoadedTest : public testing::Test {
 protected:
  LoadSources sources(uint16_t node) {
    return {.is_online = [](NodeId) { return true; },
            .running =
                [this, node] {
                  ++samples_;
                  return running_[node];
                },
            .cores = 1,
            .exchange_period = kPeriod,
            .exchange_lifetime = 5 * kPeriod};
  }
  static constexpr std::chrono::milliseconds kPeriod{25};
  LoopbackNodes nodes_{3};
  unsigned running_[3] = {0, 0, 0};
  unsigned samples_ = 0;
  std::unique_ptr<Placement> placement_[3] = {make_least_loaded(nodes_[0], sources(0)),
                                              make_least_loaded(nodes_[1], sources(1)),
                                              make_least_loaded(nodes_[2], sources(2))};
};

TEST_F(LeastLoadedTest, LearnsTheLoadOfTheOthers) {
  running_[0] = 5;
  running_[1] = 4;
  placement_[0]->choose(GlobalPid{10});
  nodes_.run_for(4 * kPeriod);
  for (pid_t pid = 20; pid < 23; ++pid)
    EXPECT_EQ(placement_[0]->choose(GlobalPid{pid}), NodeId{2}) << pid;
}

TEST_F(LeastLoadedTest, NothingIsExchangedWhenNothingIsPlaced) {
  nodes_.run_for(4 * kPeriod);
  EXPECT_EQ(samples_, 0u);
  placement_[0]->choose(GlobalPid{10});
  nodes_.run_for(8 * kPeriod);
  unsigned before = samples_;
  EXPECT_GT(before, 3u);
  nodes_.run_for(8 * kPeriod);
  EXPECT_EQ(samples_, before);
}

TEST(RunningProcesses, CountsWhatRunsAndNotWhatSleeps) {
  unsigned before = count_running_processes();
  EXPECT_GE(before, 1u) << "this process";
  EXPECT_GE(usable_cores(), 1u);
}

}  // namespace
}  // namespace krg
