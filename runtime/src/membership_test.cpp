// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/membership.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "krg/runtime/loopback_transport.h"

namespace krg {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using Death = LoopbackFabric::Death;

constexpr unsigned kNodes = 5;

struct ChatterNotice {
  static constexpr uint16_t kId = 900;
  uint8_t version = 1;
};

NodeId node(unsigned n) {
  return NodeId{static_cast<uint16_t>(n)};
}

class MembershipTest : public ::testing::TestWithParam<uint64_t> {
 protected:
  struct Node {
    Node(Transport& transport, Membership::Options options)
        : messenger(transport), membership(messenger, options) {
      membership.on_death([this](NodeId who) { deaths.push_back(who); });
      membership.on_change([this] { ++changes; });
      membership.on_excluded([this] { ++exclusions; });
    }
    Messenger messenger;
    Membership membership;
    std::vector<NodeId> deaths;
    int changes = 0, exclusions = 0;
  };

  MembershipTest() : fabric_(loop_, {.nodes = kNodes, .seed = GetParam()}) {
    for (unsigned n = 0; n < kNodes; ++n) nodes_.push_back(make_node(n, milliseconds(5)));
  }
  std::unique_ptr<Node> make_node(unsigned n, milliseconds period) {
    return std::make_unique<Node>(
        fabric_.node(node(n)),
        Membership::Options{.heartbeat_period = period, .timeout = milliseconds(60)});
  }
  // Runs the loop until `reached`, or fails after a second.
  template <class Condition>
  void until(Condition reached) {
    const auto give_up = Clock::now() + std::chrono::seconds(2);
    while (!reached() && Clock::now() < give_up) loop_.run_once(milliseconds(5));
    EXPECT_TRUE(reached());
  }
  void run_for(milliseconds time) {
    for (const auto end = Clock::now() + time; Clock::now() < end;) loop_.run_once(milliseconds(2));
  }
  Membership& at(unsigned n) { return nodes_[n]->membership; }
  bool all_agree(const std::vector<unsigned>& nodes) {
    for (unsigned n : nodes)
      if (at(n).online() != at(nodes[0]).online() || at(n).epoch() != at(nodes[0]).epoch())
        return false;
    return true;
  }

  EventLoop loop_ = [] {
    auto made = EventLoop::create();
    check(made.has_value(), "a loop can be made");
    return std::move(*made);
  }();
  LoopbackFabric fabric_;
  std::vector<std::unique_ptr<Node>> nodes_;
};

TEST_P(MembershipTest, StartsWithAllOnlineAndStaysSoWhenQuiet) {
  run_for(milliseconds(150));
  for (unsigned n = 0; n < kNodes; ++n) {
    EXPECT_EQ(at(n).online().size(), kNodes);
    EXPECT_EQ(at(n).leader(), node(0));
    EXPECT_EQ(nodes_[n]->changes, 0);
    EXPECT_TRUE(nodes_[n]->deaths.empty());
  }
}

TEST_P(MembershipTest, TakesANodeOutAndInEverywhere) {
  std::optional<Status> done;
  at(3).set_online(node(2), false, [&](Status s) { done = s; });
  until([&] { return done.has_value(); });
  EXPECT_TRUE(*done);
  for (unsigned n = 0; n < kNodes; ++n) {
    EXPECT_EQ(at(n).state(node(2)), NodeState::kPresent) << n;
    EXPECT_EQ(nodes_[n]->changes, 1) << n;
  }
  EXPECT_TRUE(all_agree({0, 1, 2, 3, 4}));
  done.reset();
  at(2).set_online(node(2), true, [&](Status s) { done = s; });
  until([&] { return done.has_value(); });
  EXPECT_EQ(at(4).online().size(), kNodes);
  EXPECT_TRUE(all_agree({0, 1, 2, 3, 4}));
}

TEST_P(MembershipTest, KeepsOneNodeOnline) {
  std::vector<int> outcomes;
  for (unsigned n = 0; n < kNodes; ++n)
    at(n).set_online(node(n), false,
                     [&](Status s) { outcomes.push_back(s ? 0 : s.error().errno_or(-1)); });
  until([&] { return outcomes.size() == kNodes; });
  EXPECT_EQ(std::count(outcomes.begin(), outcomes.end(), EBUSY), 1);
  EXPECT_EQ(std::count(outcomes.begin(), outcomes.end(), 0), kNodes - 1);
  until([&] { return all_agree({0, 1, 2, 3, 4}); });
  EXPECT_EQ(at(0).online().size(), 1u);
}

TEST_P(MembershipTest, TellsEveryoneOfADeathOnce) {
  fabric_.kill(node(3), Death::kNoticed);
  until([&] { return at(0).state(node(3)) == NodeState::kDead; });
  run_for(milliseconds(30));
  for (unsigned n : {0u, 1u, 2u, 4u}) {
    EXPECT_EQ(nodes_[n]->deaths, std::vector{node(3)}) << n;
    EXPECT_EQ(at(n).online().size(), kNodes - 1) << n;
  }
  std::optional<Status> done;
  at(1).set_online(node(3), true, [&](Status s) { done = s; });
  until([&] { return done.has_value(); });
  EXPECT_EQ(done->error().errno_or(0), EHOSTDOWN);
}

TEST_P(MembershipTest, FindsSilentDeathsByHeartbeats) {
  run_for(milliseconds(20));
  fabric_.kill(node(1), Death::kSilent);
  fabric_.kill(node(2), Death::kSilent);
  until([&] { return nodes_[0]->deaths.size() == 2 && nodes_[3]->deaths.size() == 2; });
  until([&] { return nodes_[4]->deaths.size() == 2; });
  EXPECT_EQ(at(4).online().size(), kNodes - 2);
}

TEST_P(MembershipTest, TakesAnyMessageForASignOfLife) {
  nodes_[2].reset();
  nodes_[2] = make_node(2, std::chrono::minutes(1));  // its heartbeats lie behind something
  nodes_[3]->messenger.on<ChatterNotice>([](NodeId, const ChatterNotice&, std::string_view) {});
  auto chatter = loop_.every(milliseconds(5), [this] {
    EXPECT_TRUE(nodes_[2]->messenger.send(node(3), ChatterNotice{}));
  });
  run_for(milliseconds(200));
  EXPECT_TRUE(nodes_[3]->deaths.empty());
  EXPECT_EQ(at(0).online().size(), kNodes);
  chatter.reset();
  until([&] { return at(0).state(node(2)) == NodeState::kDead; });
}

TEST_P(MembershipTest, DoesNotJudgeByTheTimeThatItStoodStillItself) {
  run_for(milliseconds(10));
  fabric_.set_receiving(node(3), false);  // what comes lies unread
  for (int stall = 0; stall < 3; ++stall) {
    std::this_thread::sleep_for(milliseconds(28));
    loop_.run_once(milliseconds(0));
  }
  fabric_.set_receiving(node(3), true);
  run_for(milliseconds(50));
  for (auto& each : nodes_) EXPECT_TRUE(each->deaths.empty());
}

TEST_P(MembershipTest, GoesOnUnderTheNextLeader) {
  std::optional<Status> done;
  at(4).set_online(node(3), false, [&](Status s) { done = s; });
  for (int i = 0; i < 2; ++i) loop_.run_once(milliseconds(0));  // under way, perhaps told to some
  fabric_.kill(node(0), Death::kSilent);
  until([&] { return done.has_value(); });
  EXPECT_TRUE(*done) << done->error().message();
  until([&] { return all_agree({1, 2, 3, 4}) && at(4).leader() == node(1); });
  for (unsigned n : {1u, 2u, 3u, 4u}) EXPECT_EQ(at(n).state(node(3)), NodeState::kPresent) << n;
}

TEST_P(MembershipTest, TellsANodeThatStoodStillThatItIsOut) {
  // It neither gives signs of life nor judges others, as a process that is stopped would not.
  nodes_[2].reset();
  nodes_[2] = make_node(2, std::chrono::minutes(1));
  fabric_.set_receiving(node(2), false);
  until([&] { return at(0).state(node(2)) == NodeState::kDead; });
  EXPECT_EQ(nodes_[2]->exclusions, 0);
  fabric_.set_receiving(node(2), true);
  until([&] { return nodes_[2]->exclusions > 0; });
  EXPECT_TRUE(nodes_[2]->deaths.empty());
  EXPECT_EQ(at(0).online().size(), kNodes - 1);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MembershipTest, ::testing::Values(1, 2, 77));

}  // namespace
}  // namespace krg
