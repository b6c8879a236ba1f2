// A listening socket's home and scripted nodes that accept by it: whatever order their messages
// come in, each connection is served by somebody. SPDX-License-Identifier: GPL-2.0-or-later
#include "home_listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <deque>
#include <optional>

#include "accept_now.h"
#include "krg/runtime/loopback_transport.h"
#include "listener_shape.h"
#include "remote_home.h"
#include "socket_relays.h"

namespace krg {
namespace {

constexpr NodeId kHome{0}, kFar{1}, kFarther{2};
constexpr ListenerPlace kNowhere{};

struct Node {
  Node(EventLoop& loop, LoopbackFabric& fabric, NodeId self)
      : messenger(fabric.node(self)),
        workers(loop, 1),
        context{.loop = loop,
                .workers = workers,
                .messenger = messenger,
                .self = self,
                .node_count = 3,
                .pids = PidRange(self, 3),
                .paths = {}},
        locks(context),
        home(context, locks),
        sockets(context, home) {
    messenger.on_request<ListenerOffer>(
        [this](NodeId from, const ListenerOffer& offer, std::string_view, Messenger::Reply reply) {
          offers.push_back(offer.connection);
          if (is_silent) return silent.push_back(std::move(reply));
          if (error != 0) return reply.fail(error, "scripted");
          StreamTaken taken;
          taken.home = offer.connection;
          EXPECT_TRUE(messenger.send(from, taken));
          reply.ok();
          served.push_back(offer.connection);
        });
    messenger.on_request<ListenerAsk>(
        [this](NodeId, const ListenerAsk&, std::string_view, Messenger::Reply reply) {
          ++questions;
          wants ? reply.ok() : reply.fail(EAGAIN, "scripted");
        });
  }

  Messenger messenger;
  WorkerPool workers;
  NodeContext context;
  HomeRecordLocks locks;
  RemoteHome home;
  SocketRelays sockets;
  int error = 0;  // what it answers to offers
  bool is_silent = false, wants = false;
  std::deque<Messenger::Reply> silent;
  size_t questions = 0;
  std::vector<HomeId> offers, served;
};

class HomeListenerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint16_t id = 0; id < 3; ++id)
      nodes_.push_back(std::make_unique<Node>(loop_, fabric_, NodeId{id}));
    listen_at(AF_INET, 50);
  }

  // Timers that nobody holds keep the loop: the last is due after half a second.
  void TearDown() override {
    nodes_.clear();
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(600);
    while (std::chrono::steady_clock::now() < end) loop_.run_once(std::chrono::milliseconds(10));
  }

  // What the listener's entry is kept by at first: as if kFar had the socket.
  void listen_at(int domain, int backlog) {
    if (listener_ != nullptr) home().drop_reference(kFar, id_);
    native_ = UniqueFd(socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (domain == AF_INET) {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      ASSERT_EQ(bind(native_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    } else {
      sockaddr_un address{AF_UNIX, "home_listener_test.socket"};
      unlink(address.sun_path);
      ASSERT_EQ(bind(native_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    }
    ASSERT_EQ(listen(native_.get(), backlog), 0);
    auto made = std::make_unique<HomeListener>(nodes_[0]->context, home(), nodes_[0]->sockets,
                                               UniqueFd(fcntl(native_.get(), F_DUPFD_CLOEXEC, 0)));
    listener_ = made.get();
    id_ = home().add_held_by(kFar, std::move(made));
    listener_->set_id(id_);
  }

  Node& far() { return *nodes_[1]; }
  Node& farther() { return *nodes_[2]; }
  RemoteHome& home() { return nodes_[0]->home; }

  bool pump_until(const std::function<bool()>& holds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (std::chrono::steady_clock::now() < end) {
      if (holds()) return true;
      loop_.run_once(std::chrono::milliseconds(1));
    }
    return false;
  }
  void settle() {
    for (int quiet = 0; quiet < 5;)
      quiet = loop_.run_once(std::chrono::milliseconds(1)) ? 0 : quiet + 1;
  }

  // A client that has connected and said `word`.
  UniqueFd client(std::string_view word) {
    auto shape = listener_shape_of(native_.get());
    auto made = connect_to(*shape, {});
    EXPECT_TRUE(made);
    EXPECT_EQ(send(made->get(), word.data(), word.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(word.size()));
    return std::move(*made);
  }
  bool is_reset(const UniqueFd& client) {
    char byte;
    return recv(client.get(), &byte, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN;
  }
  // Accepts natively what says `word`.
  bool serves_natively(std::string_view word) {
    UniqueFd accepted;
    if (!pump_until([&] { return bool(accepted = accept_now(native_.get())); })) return false;
    std::string got(100, 0);
    ssize_t bytes = 0;
    pump_until([&] { return (bytes = recv(accepted.get(), got.data(), 100, MSG_DONTWAIT)) > 0; });
    return got.substr(0, static_cast<size_t>(std::max<ssize_t>(bytes, 0))) == word;
  }
  // As the node does when its process moves on: a connection that waited there.
  void give_back(Node& node, std::string_view came) {
    ASSERT_FALSE(node.served.empty());
    listener_->take_back(node.served.back(), came);
    home().drop_reference(node.context.self, node.served.back());
    node.served.pop_back();
  }

  EventLoop loop_{*EventLoop::create()};
  LoopbackFabric fabric_{loop_, {.nodes = 3}};
  std::vector<std::unique_ptr<Node>> nodes_;
  UniqueFd native_;
  HomeListener* listener_ = nullptr;
  HomeId id_;
};

TEST_F(HomeListenerTest, AttachBeforeThePauseOfTheNodeThatWasLeft) {
  listener_->attach({kFar, 0, 1}, kNowhere);
  far().error = EAGAIN;  // its process stands still
  const UniqueFd first = client("first");
  ASSERT_TRUE(pump_until([&] { return !far().offers.empty(); }));
  listener_->attach({kFarther, 0, 2}, {kFar, 0, 1});
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 1; }));
  const size_t offers = far().offers.size();
  const UniqueFd second = client("second");
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 2; }));
  listener_->detach({kFar, 0, 1});
  const UniqueFd third = client("third");
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 3; }));
  EXPECT_EQ(far().offers.size(), offers);
  EXPECT_EQ(far().questions + farther().questions, 0u);  // one process has it, as before
}

TEST_F(HomeListenerTest, AttachAfterThatOfTheNextNode) {
  far().error = EAGAIN;
  listener_->attach({kFarther, 0, 2}, {kFar, 0, 1});
  listener_->attach({kFar, 0, 1}, kNowhere);
  const UniqueFd first = client("first"), second = client("second");
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 2; }));
  listener_->detach({kFar, 0, 1});
  const UniqueFd third = client("third");
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 3; }));
  EXPECT_EQ(far().questions + farther().questions, 0u);
}

TEST_F(HomeListenerTest, WhatNobodyTakesWaitsForTheNext) {
  far().error = EPIPE;
  listener_->attach({kFar, 0, 1}, kNowhere);
  const UniqueFd peer = client("hello");
  ASSERT_TRUE(pump_until([&] { return !far().offers.empty(); }));
  settle();
  EXPECT_TRUE(listener_->has_waiting());
  EXPECT_EQ(far().offers.size(), 1u);
  listener_->attach({kFarther, 0, 2}, kNowhere);
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 1; }));
  EXPECT_FALSE(listener_->has_waiting());
  EXPECT_FALSE(is_reset(peer));
}

TEST_F(HomeListenerTest, WhatNobodyTakesIsKeptWhenItsLastNodeLetsGo) {
  far().error = EPIPE;
  listener_->attach({kFar, 0, 1}, kNowhere);
  const UniqueFd peer = client("hello");
  ASSERT_TRUE(pump_until([&] { return !far().offers.empty(); }));
  settle();
  home().drop_reference(kFar, id_);
  EXPECT_FALSE(is_reset(peer));
  EXPECT_TRUE(serves_natively("hello"));  // half a second later
  EXPECT_TRUE(pump_until([&] { return home().find(id_) == nullptr; }));
}

TEST_F(HomeListenerTest, ANodeThatFailsWithAnOfferHasNotTakenIt) {
  far().is_silent = true;
  listener_->attach({kFar, 0, 1}, kNowhere);
  const UniqueFd peer = client("hello");
  ASSERT_TRUE(pump_until([&] { return far().silent.size() == 1; }));
  const HomeId other = home().add_guard({}, id_);  // the entry outlives the node's reference
  fabric_.kill(kFar, LoopbackFabric::Death::kNoticed);
  listener_->attach({kFarther, 0, 2}, kNowhere);
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 1; }));
  EXPECT_FALSE(is_reset(peer));
  home().export_done(other);
}

TEST_F(HomeListenerTest, AtHomeAgainWhatWaitedIsAcceptedNatively) {
  for (const int domain : {AF_INET, AF_UNIX}) {
    SCOPED_TRACE(domain);
    listen_at(domain, 50);
    far().error = 0;
    listener_->attach({kFar, 0, 1}, kNowhere);
    const UniqueFd peer = client("hello");
    ASSERT_TRUE(pump_until([&] { return far().served.size() == 1; }));
    if (domain == AF_UNIX) rename("home_listener_test.socket", "home_listener_test.renamed");
    // Its attach has overtaken what says that the process left it.
    listener_->attach({kFarther, 0, 2}, kNowhere);
    farther().error = EPIPE;
    give_back(far(), "");
    listener_->detach({kFar, 0, 1});
    listener_->come_home(0, {kFarther, 0, 2});
    EXPECT_TRUE(serves_natively("hello"));
    EXPECT_FALSE(listener_->has_waiting());
    settle();
  }
  unlink("home_listener_test.renamed");
}

TEST_F(HomeListenerTest, AShortQueueTakesThemOneAfterTheOther) {
  listen_at(AF_INET, 0);  // Linux has room for one
  listener_->attach({kFar, 0, 1}, kNowhere);
  std::vector<UniqueFd> peers;
  for (size_t count = 1; count <= 4; ++count) {
    peers.push_back(client("hello"));
    ASSERT_TRUE(pump_until([&] { return far().served.size() == count; }));
  }
  listener_->detach({kFar, 0, 1});
  while (!far().served.empty()) give_back(far(), "");
  listener_->come_home(0, {kFar, 0, 1});
  home().drop_reference(kFar, id_);
  for (int count = 0; count < 4; ++count) EXPECT_TRUE(serves_natively("hello")) << count;
  EXPECT_TRUE(pump_until([&] { return home().find(id_) == nullptr; }));
}

TEST_F(HomeListenerTest, SharersAreAskedAndWhatTheyRefuseGoesToTheQueue) {
  listener_->share();
  listener_->attach({kFar, 0, 1}, kNowhere);
  listener_->attach({kFarther, 0, 2}, kNowhere);
  farther().wants = true;
  const UniqueFd peer = client("hello");
  ASSERT_TRUE(pump_until([&] { return farther().served.size() == 1; }));
  EXPECT_TRUE(far().offers.empty());
  farther().wants = false;
  give_back(farther(), "he");  // which it has read already
  EXPECT_TRUE(pump_until([&] { return !listener_->has_waiting(); }));
  const UniqueFd accepted = accept_now(native_.get());
  EXPECT_TRUE(accepted);
}

}  // namespace
}  // namespace krg
