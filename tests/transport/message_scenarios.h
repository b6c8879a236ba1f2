// Scenarios of messages: order, sizes, back pressure. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "krg/runtime/signs_of_life.h"
#include "scenario.h"

namespace krg::test {

// Bytes that only this message has.
inline std::vector<std::byte> pattern(uint64_t seed, size_t length) {
  std::vector<std::byte> bytes(length);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  size_t i = 0;
  for (; i + 8 <= length; i += 8) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    std::memcpy(&bytes[i], &state, 8);
  }
  for (; i < length; ++i) bytes[i] = static_cast<std::byte>(state >> (i % 8 * 8));
  return bytes;
}
inline bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size()) == 0);
}
template <class T>
std::span<const std::byte> bytes_of(const T& object) {
  return std::as_bytes(std::span(&object, 1));
}
// The errno value of a failure; 0 for success.
template <class T>
int error_number(const Result<T>& result) {
  return result ? 0 : result.error().errno_or(-1);
}
template <class T>
T read_as(std::span<const std::byte> bytes) {
  T object{};
  EXPECT_EQ(bytes.size(), sizeof object);
  if (bytes.size() == sizeof object) std::memcpy(&object, bytes.data(), sizeof object);
  return object;
}

// Everybody sends to everybody, itself too, messages of one to several frames; all arrive once,
// whole, in order.
class AllToAllInOrder : public Scenario {
 public:
  using Scenario::Scenario;
  static constexpr uint32_t kMessages = 120;
  static constexpr HandlerId kHandler = 7;

  void prepare() override {
    next_to_send_.resize(nodes());
    next_expected_.resize(nodes());
    heard_.resize(nodes());
    transport().set_handler(kHandler, [this](NodeId from, std::span<const std::byte> header,
                                             std::span<const std::byte> payload) {
      auto index = read_as<uint32_t>(header);
      EXPECT_EQ(index, next_expected_.at(from.value)) << "from " << from.value;
      EXPECT_TRUE(same_bytes(payload, message(from.value, self(), index)));
      next_expected_[from.value] = index + 1;
      if (from.value == self()) return;
      const auto* signs_of_life = dynamic_cast<const SignsOfLife*>(&transport());
      ASSERT_NE(signs_of_life, nullptr);
      EXPECT_GT(signs_of_life->heard(from), heard_[from.value]) << "from " << from.value;
      heard_[from.value] = signs_of_life->heard(from);
    });
    transport().on_writable([this](NodeId to) { send_all(to.value); });
  }
  void start() override {
    for (unsigned n = 0; n < nodes(); ++n) send_all(n);
  }
  bool done() const override {
    for (unsigned n = 0; n < nodes(); ++n)
      if (next_expected_[n] < kMessages || next_to_send_[n] < kMessages) return false;
    return true;
  }

 private:
  static std::vector<std::byte> message(unsigned from, unsigned to, uint32_t index) {
    static constexpr size_t kSizes[] = {0, 1, 64, 1000, 16'000, 50'001, 3, 131'072};
    return pattern(from * 1000003u + to * 1009u + index, kSizes[index % 8]);
  }
  void send_all(unsigned to) {
    uint32_t& next = next_to_send_[to];
    for (; next < kMessages; ++next) {
      auto payload = message(self(), to, next);
      Status sent = transport().send(node_id(to), kHandler, bytes_of(next), payload);
      if (sent) continue;
      EXPECT_EQ(sent.error().errno_or(0), ENOBUFS) << sent.error().message();
      return;
    }
  }
  std::vector<uint32_t> next_to_send_, next_expected_;
  std::vector<uint64_t> heard_;
};

// Messages from 0 bytes to the most there may be, to the next node and to itself; each is answered
// by its receiver before the next goes out.
class AllSizes : public Scenario {
 public:
  using Scenario::Scenario;
  static constexpr HandlerId kHandler = 255, kAnswer = 0;
  static constexpr size_t kSizes[] = {
      0, 1, 7, 63, 64, 4096, 16'000, 16'384, 65'537, 1u << 20, 4'194'305, 16u << 20, 64u << 20};

  void prepare() override {
    transport().set_handler(kHandler, [this](NodeId from, std::span<const std::byte> header,
                                             std::span<const std::byte> payload) {
      EXPECT_TRUE(same_bytes(header, pattern(payload.size(), payload.size() % 257)));
      EXPECT_TRUE(same_bytes(payload, pattern(payload.size() + from.value, payload.size())));
      uint64_t size = payload.size();
      EXPECT_TRUE(transport().send(from, kAnswer, bytes_of(size), {}));
    });
    transport().set_handler(
        kAnswer, [this](NodeId, std::span<const std::byte> header, std::span<const std::byte>) {
          EXPECT_EQ(read_as<uint64_t>(header), kSizes[index_]);
          next();
        });
  }
  void start() override { send(); }
  bool done() const override { return index_ == std::size(kSizes); }

 private:
  void next() {
    to_self_ = !to_self_;
    if (to_self_ && kSizes[index_] > (4u << 20)) to_self_ = false;  // enough of copying
    if (!to_self_) ++index_;
    if (!done()) send();
  }
  void send() {
    const size_t size = kSizes[index_];
    NodeId to = to_self_ ? transport().self() : node_id((self() + 1) % nodes());
    Status sent =
        transport().send(to, kHandler, pattern(size, size % 257), pattern(size + self(), size));
    EXPECT_EQ(error_number(sent), 0);
  }
  size_t index_ = 0;
  bool to_self_ = false;
};

// Short messages back and forth between pairs of nodes, each answering the last.
class RoundTrips : public Scenario {
 public:
  using Scenario::Scenario;
  static constexpr uint32_t kRoundTrips = 1000;
  static constexpr HandlerId kHandler = 12;

  void prepare() override {
    transport().set_handler(kHandler, [this](NodeId from, std::span<const std::byte>,
                                             std::span<const std::byte> payload) {
      EXPECT_EQ(payload.size(), 64u);
      if (++received_ < kRoundTrips || self() % 2 == 1) send(from);
    });
  }
  void start() override {
    if (self() % 2 == 0) send(node_id(self() + 1));
  }
  bool done() const override { return received_ == kRoundTrips; }

 private:
  void send(NodeId to) {
    EXPECT_EQ(error_number(transport().send(to, kHandler, {}, pattern(received_, 64))), 0);
  }
  uint32_t received_ = 0;
};

// A sender that does not let the loop run meets the queue's limit, is told when there is room, and
// loses nothing.
class BackPressure : public Scenario {
 public:
  using Scenario::Scenario;
  static constexpr HandlerId kHandler = 3;
  static constexpr uint64_t kTotal = 1200;
  static constexpr size_t kPayload = 32 * 1024;

  void prepare() override {
    transport().set_handler(kHandler, [this](NodeId, std::span<const std::byte> header,
                                             std::span<const std::byte> payload) {
      EXPECT_EQ(read_as<uint64_t>(header), received_);
      EXPECT_EQ(payload.size(), kPayload);
      ++received_;
    });
    transport().on_writable([this](NodeId to) {
      EXPECT_EQ(to, node_id(1));
      ++writable_;
      burst();
    });
  }
  void start() override {
    if (self() != 0) return;
    burst();
    EXPECT_LT(sent_, kTotal) << "no limit was met";
    // The limit, one message over it, and what was in flight below the queue.
    EXPECT_LE(sent_ * kPayload, transport().send_queue_limit_bytes() + kPayload + (4u << 20));
  }
  bool done() const override {
    if (self() == 0) return sent_ == kTotal && writable_ > 0;
    return self() != 1 || received_ == kTotal;
  }

 private:
  void burst() {
    const std::vector<std::byte> payload(kPayload);
    for (; sent_ < kTotal; ++sent_) {
      Status sent = transport().send(node_id(1), kHandler, bytes_of(sent_), payload);
      if (sent) continue;
      EXPECT_EQ(sent.error().errno_or(0), ENOBUFS);
      return;
    }
  }
  uint64_t sent_ = 0, received_ = 0;
  unsigned writable_ = 0;
};

// The last node is killed when each other one has sent it a message and nothing more is under way;
// what is sent to it afterwards, now and then, finds that out.
class DeathInSilence : public Scenario {
 public:
  using Scenario::Scenario;
  static constexpr HandlerId kHandler = 24;

  void prepare() override {
    transport().on_peer_failure([this](NodeId peer) {
      EXPECT_EQ(peer, victim());
      found_ = true;
    });
    transport().set_handler(kHandler,
                            [this](NodeId, std::span<const std::byte>, std::span<const std::byte>) {
                              if (++heard_ == nodes() - 1) node_.die();
                            });
  }
  void start() override {
    if (transport().self() == victim()) return;
    EXPECT_TRUE(transport().send(victim(), kHandler, {}, {}));
    ticker_ = transport().loop().every(std::chrono::milliseconds(300), [this] {
      static_cast<void>(transport().send(victim(), kHandler, {}, {}));
    });
  }
  bool done() const override { return found_; }

 private:
  NodeId victim() const { return node_id(nodes() - 1); }

  EventLoop::Timer ticker_;
  unsigned heard_ = 0;
  bool found_ = false;
};

}  // namespace krg::test
