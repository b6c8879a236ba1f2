// N nodes with a Kddm each in this process, over a loopback fabric that shuffles, for tests.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "krg/runtime/loopback_transport.h"
#include "krg/shmem/kddm.h"

namespace krg::testing {

inline constexpr SetId kSet{7};

class KddmFixture : public ::testing::Test {
 protected:
  using OptionsOf = std::function<KddmSetOptions(unsigned node)>;

  void make(unsigned nodes, const OptionsOf& options, uint64_t seed = 42) {
    loop_ = std::make_unique<EventLoop>(std::move(*EventLoop::create()));
    fabric_ = std::make_unique<LoopbackFabric>(
        *loop_, LoopbackFabric::Options{.nodes = nodes, .seed = seed});
    alive_.assign(nodes, true);
    for (unsigned n = 0; n < nodes; ++n) {
      messengers_.push_back(
          std::make_unique<Messenger>(fabric_->node(NodeId{static_cast<uint16_t>(n)})));
      kddms_.push_back(std::make_unique<Kddm>(*messengers_.back()));
      messengers_.back()->on_peer_failure(
          [kddm = kddms_.back().get()](NodeId dead) { kddm->node_died(dead); });
      ASSERT_TRUE(kddms_.back()->open_set(kSet, options(n)));
    }
  }
  void make(unsigned nodes, size_t object_bytes, std::shared_ptr<IoLinker> linker = nullptr) {
    make(nodes,
         [&](unsigned) { return KddmSetOptions{.object_bytes = object_bytes, .linker = linker}; });
  }
  void TearDown() override { unmake(); }
  void unmake() {
    kddms_.clear();
    messengers_.clear();
    fabric_.reset();
    loop_.reset();
  }

  // Waits for at most 20 s.
  template <class Done>
  void run_until(Done done) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), deadline) << "nothing more happens";
      loop_->run_once(std::chrono::milliseconds(10));
    }
  }
  // So many turns of the loop, if it has something to do.
  void run_some(unsigned turns) {
    for (unsigned i = 0; i < turns; ++i) loop_->run_once(std::chrono::milliseconds(0));
  }
  void kill(unsigned node) {
    alive_[node] = false;
    fabric_->kill(NodeId{static_cast<uint16_t>(node)}, LoopbackFabric::Death::kNoticed);
  }

  static uint64_t number_in(std::span<const std::byte> bytes) {
    uint64_t value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  static void set_number(std::span<std::byte> bytes, uint64_t value) {
    std::memcpy(bytes.data(), &value, sizeof value);
  }
  // Adds to (0: only reads) the number at the beginning of an object. Returns the new value.
  Result<uint64_t> try_add(unsigned node, ObjectId object, uint64_t amount) {
    Result<uint64_t> value = errno_error("", EINPROGRESS);
    bool done = false;
    auto use = [&](Result<std::span<std::byte>> bytes) {
      done = true;
      if (!bytes) {
        value = bytes.error();
        return;
      }
      value = number_in(*bytes) + amount;
      if (amount) set_number(*bytes, *value);
      kddms_[node]->put(kSet, object);
    };
    if (amount) {
      kddms_[node]->grab(kSet, object, Kddm::Touch::kFirstTouch, use);
    } else {
      kddms_[node]->get(kSet, object, Kddm::Touch::kFirstTouch, use);
    }
    run_until([&] { return done; });
    return value;
  }
  uint64_t add(unsigned node, ObjectId object, uint64_t amount) {
    auto value = try_add(node, object, amount);
    EXPECT_TRUE(value) << value.error().message();
    return value ? *value : ~0ull;
  }
  void remove(unsigned node, ObjectId object) {
    bool gone = false;
    kddms_[node]->remove(kSet, object, [&] { gone = true; });
    run_until([&] { return gone; });
  }

  // What an operation with a Status ends with: an errno value, 0 for success.
  template <class Start>
  int outcome_of(Start start) {
    int outcome = -1;
    start([&](const Status& status) { outcome = status ? 0 : status.error().errno_or(EIO); });
    run_until([&] { return outcome >= 0; });
    return outcome;
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<LoopbackFabric> fabric_;
  std::vector<std::unique_ptr<Messenger>> messengers_;
  std::vector<std::unique_ptr<Kddm>> kddms_;
  std::vector<bool> alive_;
};

}  // namespace krg::testing
