// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/messenger.h"

#include <gtest/gtest.h>

#include <future>
#include <optional>
#include <vector>

#include "krg/runtime/loopback_transport.h"

namespace krg {
namespace {

struct Ping {
  static constexpr uint16_t kId = 900;
  uint8_t version = 1;
  uint32_t number = 0;
};
struct Ask {
  static constexpr uint16_t kId = 901;
  uint8_t version = 1;
  uint32_t number = 0;
};
struct OtherAsk {  // the same id with another size: a peer of another version
  static constexpr uint16_t kId = 901;
  uint8_t version = 2;
  uint64_t numbers[3] = {};
};

constexpr NodeId kA{0}, kB{1};

class MessengerTest : public ::testing::Test {
 protected:
  void make(LoopbackFabric::Options options) {
    fabric_ = std::make_unique<LoopbackFabric>(loop_, options);
    a_ = std::make_unique<Messenger>(fabric_->node(kA));
    b_ = std::make_unique<Messenger>(fabric_->node(kB));
  }
  void settle() {
    while (loop_.run_once(std::chrono::microseconds(0)) > 0) {
    }
  }
  EventLoop loop_ = [] {
    auto made = EventLoop::create();
    check(made.has_value(), "a loop can be made");
    return std::move(*made);
  }();
  std::unique_ptr<LoopbackFabric> fabric_;
  std::unique_ptr<Messenger> a_, b_;
};

TEST_F(MessengerTest, CarriesNoticesInOrderWithPayload) {
  make({.nodes = 2, .seed = 7});
  std::vector<uint32_t> seen;
  b_->on<Ping>([&](NodeId from, const Ping& ping, std::string_view payload) {
    EXPECT_EQ(from, kA);
    EXPECT_EQ(payload, std::to_string(ping.number));
    seen.push_back(ping.number);
  });
  for (uint32_t i = 0; i < 200; ++i)
    ASSERT_TRUE(a_->send(kB, Ping{.number = i}, std::to_string(i)));
  settle();
  ASSERT_EQ(seen.size(), 200u);
  for (uint32_t i = 0; i < 200; ++i) EXPECT_EQ(seen[i], i);
}

TEST_F(MessengerTest, AnswersRequestsAtOnceLaterAndWithErrors) {
  make({});
  std::vector<Messenger::Reply> later;
  b_->on_request<Ask>(
      [&](NodeId, const Ask& ask, std::string_view payload, Messenger::Reply reply) {
        if (ask.number == 0) return reply.ok(std::string(payload) + "!");
        if (ask.number == 1) return reply.fail(ENOENT, "nothing here");
        if (ask.number == 2) later.push_back(std::move(reply));
      });  // 3: dropped
  std::vector<std::optional<Result<std::string>>> got(4);
  for (uint32_t i = 0; i < 4; ++i)
    a_->request(kB, Ask{.number = i}, "hello", [&got, i](Result<std::string> r) { got[i] = r; });
  settle();
  ASSERT_TRUE(got[0] && *got[0]);
  EXPECT_EQ(**got[0], "hello!");
  ASSERT_TRUE(got[1] && !*got[1]);
  EXPECT_EQ(got[1]->error().errno_or(0), ENOENT);
  EXPECT_EQ(got[1]->error().context, "nothing here");
  EXPECT_FALSE(got[2]);
  ASSERT_TRUE(got[3] && !*got[3]);
  EXPECT_EQ(got[3]->error().errno_or(0), ECANCELED);
  later[0].ok("late");
  later[0].ok("twice");  // only the first answer counts
  settle();
  ASSERT_TRUE(got[2] && *got[2]);
  EXPECT_EQ(**got[2], "late");
}

TEST_F(MessengerTest, AnErrorArrivesAsItWasWithAndWithoutANumber) {
  make({});
  const Error errors[] = {errno_error("the disk", ENOSPC),
                          text_error("what nobody numbered"),
                          {std::make_error_code(std::future_errc::no_state), "a promise"}};
  b_->on_request<Ask>([&](NodeId, const Ask& ask, std::string_view, Messenger::Reply reply) {
    reply.fail(errors[ask.number]);
  });
  std::vector<Error> got;
  for (uint32_t i = 0; i < std::size(errors); ++i)
    a_->request(kB, Ask{.number = i}, {},
                [&got](Result<std::string> r) { got.push_back(r.error()); });
  settle();
  ASSERT_EQ(got.size(), std::size(errors));
  for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].message(), errors[i].message());
  EXPECT_EQ(got[0].errno_or(0), ENOSPC);
  EXPECT_EQ(got[1].errno_or(EIO), EIO);
  EXPECT_EQ(got[2].errno_or(EIO), EIO);
}

TEST_F(MessengerTest, AnswersRequestsThatItCannotHandle) {
  make({});
  std::optional<Result<std::string>> no_handler, wrong_size;
  a_->request(kB, Ping{}, "", [&](Result<std::string> r) { no_handler = r; });
  b_->on_request<Ask>([](NodeId, const Ask&, std::string_view, Messenger::Reply r) { r.ok(); });
  a_->request(kB, OtherAsk{}, "", [&](Result<std::string> r) { wrong_size = r; });
  settle();
  ASSERT_TRUE(no_handler && !*no_handler);
  EXPECT_EQ(no_handler->error().errno_or(0), ENOSYS);
  ASSERT_TRUE(wrong_size && !*wrong_size);
}

TEST_F(MessengerTest, ReachesItself) {
  make({});
  std::optional<std::string> got;
  a_->on_request<Ask>(
      [](NodeId from, const Ask&, std::string_view payload, Messenger::Reply reply) {
        EXPECT_EQ(from, kA);
        reply.ok(payload);
      });
  a_->request(kA, Ask{}, "me", [&](Result<std::string> r) { got = *r; });
  EXPECT_FALSE(got);  // never inside the call
  settle();
  EXPECT_EQ(got, "me");
}

TEST_F(MessengerTest, DefersInOrderWhenTheQueueIsFull) {
  make({.nodes = 2, .seed = 3, .send_queue_limit_bytes = 1000});
  std::vector<uint32_t> seen;
  b_->on<Ping>([&](NodeId, const Ping& p, std::string_view) { seen.push_back(p.number); });
  fabric_->set_receiving(kB, false);
  for (uint32_t i = 0; i < 500; ++i)
    ASSERT_TRUE(a_->send(kB, Ping{.number = i}, std::string(100, 'x')));
  settle();
  EXPECT_TRUE(seen.empty());
  fabric_->set_receiving(kB, true);
  settle();
  ASSERT_EQ(seen.size(), 500u);
  for (uint32_t i = 0; i < 500; ++i) EXPECT_EQ(seen[i], i);
}

TEST_F(MessengerTest, GivesUpAPeerThatNeverDrains) {
  make({.nodes = 2, .send_queue_limit_bytes = 1000});
  fabric_->set_receiving(kB, false);
  std::string payload(32u << 20, 'x');
  Status sent;
  int accepted = 0;
  for (; accepted < 20 && sent; ++accepted) sent = a_->send(kB, Ping{}, payload);
  EXPECT_LT(accepted, 12);
  settle();
  EXPECT_TRUE(a_->is_failed(kB));
}

TEST_F(MessengerTest, FailsPendingRequestsBeforeItTellsOfADeath) {
  make({});
  std::vector<Messenger::Reply> never;
  b_->on_request<Ask>([&](NodeId, const Ask&, std::string_view, Messenger::Reply reply) {
    never.push_back(std::move(reply));
  });
  std::string order;
  a_->request(kB, Ask{}, "", [&](Result<std::string> r) {
    EXPECT_EQ(r.error().errno_or(0), EHOSTDOWN);
    order += "r";
  });
  a_->on_peer_failure([&](NodeId who) {
    EXPECT_EQ(who, kB);
    order += "f";
  });
  a_->on_peer_failure([&](NodeId) { order += "g"; });
  settle();
  fabric_->kill(kB, LoopbackFabric::Death::kNoticed);
  settle();
  EXPECT_EQ(order, "rfg");
  EXPECT_TRUE(a_->is_failed(kB));
  Status sent = a_->send(kB, Ping{});
  ASSERT_FALSE(sent);
  EXPECT_EQ(sent.error().errno_or(0), EHOSTDOWN);
  a_->request(kB, Ask{}, "", [&](Result<std::string> r) { order += r ? "!" : "e"; });
  EXPECT_EQ(order, "rfg");
  settle();
  EXPECT_EQ(order, "rfge");
}

TEST_F(MessengerTest, NoticesASilentDeathOnlyWhenToldSo) {
  make({});
  int deaths = 0, answers = 0;
  a_->on_peer_failure([&](NodeId) { ++deaths; });
  fabric_->kill(kB, LoopbackFabric::Death::kSilent);
  a_->request(kB, Ask{}, "", [&](Result<std::string> r) { answers += r ? 100 : 1; });
  settle();
  EXPECT_EQ(deaths + answers, 0);
  a_->mark_failed(kB);
  a_->mark_failed(kB);
  settle();
  EXPECT_EQ(deaths, 1);
  EXPECT_EQ(answers, 1);
}

TEST_F(MessengerTest, ReplyMayOutliveItsMessenger) {
  make({});
  std::optional<Messenger::Reply> kept;
  b_->on_request<Ask>([&](NodeId, const Ask&, std::string_view, Messenger::Reply reply) {
    kept.emplace(std::move(reply));
  });
  a_->request(kB, Ask{}, "", [](Result<std::string>) {});
  settle();
  ASSERT_TRUE(kept);
  b_.reset();
  kept->ok("nobody sends this");
}

}  // namespace
}  // namespace krg
