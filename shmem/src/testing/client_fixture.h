// Programs that use sets: clients in threads of this process, each on a node of a loopback cluster
// whose krgd parts run in another thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "krg/runtime/control_server.h"
#include "krg/runtime/loopback_transport.h"
#include "krg/shmem/client.h"
#include "krg/shmem/kddm_service.h"

namespace krg::testing {

class ClientTest : public ::testing::Test {
 protected:
  static constexpr unsigned kNodes = 4;
  // One node's parts of krgd.
  struct Node {
    Node(EventLoop& loop, Transport& transport, const std::string& path)
        : messenger(transport), control(loop, getuid()) {
      messenger.on_peer_failure([this](NodeId dead) { kddm.node_died(dead); });
      service.add_commands(control);
      EXPECT_TRUE(control.listen(path, 0600));
    }
    Messenger messenger;
    Kddm kddm{messenger};
    KddmService service{messenger, kddm};
    ControlServer control;
  };

  void SetUp() override {
    for (unsigned n = 0; n < kNodes; ++n)
      nodes_.push_back(
          std::make_unique<Node>(loop_, fabric_.node(NodeId{static_cast<uint16_t>(n)}), path(n)));
    thread_ = std::thread([this] { loop_.run(); });
  }
  void TearDown() override {
    loop_.stop();
    thread_.join();
    nodes_.clear();
    for (unsigned n = 0; n < kNodes; ++n) unlink(path(n).c_str());
  }
  static std::string path(unsigned node) {
    static const std::string prefix = "/tmp/krg-client-test." + std::to_string(getpid()) + ".";
    return prefix + std::to_string(node);
  }
  static Client connect(unsigned node) {
    auto client = Client::connect(path(node));
    check(client.has_value(), "the test's krgd listens");
    return std::move(*client);
  }
  static SharedSet shared(unsigned node, std::string_view name, size_t object_bytes) {
    auto set = connect(node).open_or_create_set(name, object_bytes);
    check(set.has_value(), "the set is made");
    return std::move(*set);
  }
  // Runs `work` in the loop's thread and waits for it.
  template <class Work>
  void in_loop(Work work) {
    std::promise<void> done;
    loop_.post([&] {
      work();
      done.set_value();
    });
    done.get_future().wait();
  }
  size_t clients_of(unsigned node) {
    size_t count = 0;
    in_loop([&] { count = nodes_[node]->service.client_count(); });
    return count;
  }

  EventLoop loop_ = std::move(*EventLoop::create());
  LoopbackFabric fabric_{loop_, {.nodes = kNodes, .seed = 7}};
  std::vector<std::unique_ptr<Node>> nodes_;
  std::thread thread_;
};

inline int error_of(const Status& status) {
  return status ? 0 : status.error().errno_or(-1);
}
template <class T>
int error_of(const Result<T>& result) {
  return result ? 0 : result.error().errno_or(-1);
}

}  // namespace krg::testing
