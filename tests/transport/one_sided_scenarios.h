// Scenarios of one-sided operations, and the death of a node.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "message_scenarios.h"

namespace krg::test {

// Every node exposes a region and tells everybody; start_with_regions() runs when all are known.
class WithRegions : public Scenario {
 public:
  using Scenario::Scenario;
  static constexpr HandlerId kAnnounce = 20;

  void prepare() override {
    remote_.resize(nodes());
    memory_.resize(region_bytes());
    auto made = transport().register_memory(memory_);
    ASSERT_TRUE(made) << made.error().message();
    region_ = std::move(*made);
    EXPECT_EQ(region_->bytes().data(), memory_.data());
    transport().set_handler(kAnnounce, [this](NodeId from, std::span<const std::byte> header,
                                              std::span<const std::byte>) {
      remote_[from.value] = read_as<RemoteRegion>(header);
      if (++announced_ == nodes()) start_with_regions();
    });
  }
  void start() override {
    for (unsigned n = 0; n < nodes(); ++n)
      EXPECT_TRUE(transport().send(node_id(n), kAnnounce, bytes_of(region_->remote()), {}));
  }

 protected:
  virtual size_t region_bytes() const = 0;
  virtual void start_with_regions() = 0;

  std::vector<std::byte> memory_;
  std::unique_ptr<MemoryRegion> region_;
  std::vector<RemoteRegion> remote_;
  unsigned announced_ = 0;
};

// Each node puts to a part of every node's region that is its own, of odd sizes at odd offsets, and
// gets it back; last come one that is outside and one of 64 MiB.
class OneSidedOfOddSizes : public WithRegions {
 public:
  using WithRegions::WithRegions;
  static constexpr size_t kSizes[] = {0, 1, 3, 8, 63, 4095, 4097, 65'535, 1'000'003};
  static constexpr size_t kPart = 2u << 20, kLarge = 64u << 20;

  bool done() const override { return finished_; }

 protected:
  size_t region_bytes() const override { return kPart * nodes() + (self() == 0 ? kLarge : 0); }

  void start_with_regions() override {
    for (unsigned n = 0; n < nodes(); ++n) {
      uint64_t offset = 5;  // each beside the other, none aligned
      for (size_t size : kSizes) {
        round_trip(n, offset, size);
        offset += size + 3;
      }
    }
  }

 private:
  void round_trip(unsigned to, uint64_t offset, size_t size) {
    auto sent = std::make_shared<std::vector<std::byte>>(pattern(self() * 31 + to + size, size));
    const uint64_t at = kPart * self() + offset;
    ++under_way_;
    transport().put(node_id(to), remote_[to], at, *sent, [=, this](Status put) {
      EXPECT_TRUE(put) << put.error().message();
      auto back = std::make_shared<std::vector<std::byte>>(size);
      transport().get(node_id(to), remote_[to], at, *back, [=, this](Status got) {
        EXPECT_TRUE(got) << got.error().message();
        EXPECT_TRUE(same_bytes(*sent, *back)) << size << " bytes at node " << to;
        if (--under_way_ == 0) outside();
      });
    });
  }
  void outside() {
    const unsigned to = (self() + 1) % nodes();
    auto returned = std::make_shared<bool>(false);
    auto local = std::make_shared<std::vector<std::byte>>(8);
    auto refused = [this, to, local, returned](Status got) {
      EXPECT_TRUE(*returned) << "completed inside the call";
      EXPECT_EQ(error_number(got), ERANGE);
      transport().put(node_id(to), remote_[to], ~uint64_t{0} - 3, *local,
                      [this, local](Status put) {
                        EXPECT_FALSE(put);
                        large();
                      });
    };
    transport().get(node_id(to), remote_[to], remote_[to].length - 7, *local, refused);
    *returned = true;
  }
  // The last node fills and reads back 64 MiB of node 0.
  void large() {
    if (self() != nodes() - 1) {
      finished_ = true;
      return;
    }
    large_ = pattern(99, kLarge);
    const uint64_t at = kPart * nodes();
    transport().put(node_id(0), remote_[0], at, large_, [this, at](Status put) {
      EXPECT_TRUE(put);
      back_.resize(kLarge);
      transport().get(node_id(0), remote_[0], at, back_, [this](Status got) {
        EXPECT_TRUE(got);
        EXPECT_TRUE(same_bytes(large_, back_));
        finished_ = true;
      });
    });
  }
  std::vector<std::byte> large_, back_;
  size_t under_way_ = 0;
  bool finished_ = false;
};

// All nodes add to one word, and count by compare-and-swap in another, at the same time.
class ContendedAtomics : public WithRegions {
 public:
  using WithRegions::WithRegions;
  static constexpr uint64_t kAdds = 400, kSwaps = 50;
  static constexpr HandlerId kDone = 21;

  bool done() const override { return self() == 0 ? checked_ : finished_; }
  void prepare() override {
    WithRegions::prepare();
    transport().set_handler(kDone,
                            [this](NodeId, std::span<const std::byte>, std::span<const std::byte>) {
                              if (++nodes_done_ == nodes()) check_sums();
                            });
  }

 protected:
  size_t region_bytes() const override { return 4096; }
  void start_with_regions() override {
    for (uint64_t i = 0; i < kAdds; ++i)
      transport().fetch_add(node_id(0), remote_[0], 64, self() + 1, [this](Result<uint64_t> old) {
        EXPECT_TRUE(old);
        if (++adds_done_ == kAdds) finish_one();
      });
    swap(0);
  }

 private:
  void swap(uint64_t expected) {
    transport().compare_swap(node_id(0), remote_[0], 128, expected, expected + 1,
                             [this, expected](Result<uint64_t> old) {
                               EXPECT_TRUE(old);
                               if (!old) return;
                               if (*old != expected) return swap(*old);
                               if (++swaps_done_ == kSwaps) return finish_one();
                               swap(expected + 1);
                             });
  }
  void finish_one() {
    if (adds_done_ < kAdds || swaps_done_ < kSwaps) return;
    finished_ = true;
    EXPECT_TRUE(transport().send(node_id(0), kDone, {}, {}));
  }
  uint64_t word(size_t offset) const {
    uint64_t value;
    std::memcpy(&value, &memory_[offset], sizeof value);
    return value;
  }
  void check_sums() {
    EXPECT_EQ(word(64), kAdds * nodes() * (nodes() + 1) / 2);
    EXPECT_EQ(word(128), kSwaps * nodes());
    checked_ = true;
  }
  uint64_t adds_done_ = 0, swaps_done_ = 0;
  unsigned nodes_done_ = 0;
  bool finished_ = false, checked_ = false;
};

// The last node dies in the middle of transfers. Each other node is told once, what was under way
// fails, later sends are refused, and the survivors go on with each other.
class DeathOfANode : public WithRegions {
 public:
  using WithRegions::WithRegions;
  static constexpr HandlerId kChatter = 22, kStillHere = 23;
  static constexpr size_t kRegion = 16u << 20;

  bool done() const override {
    return deaths_ == 1 && operations_ == 0 && heard_ == nodes() - 2 && got_after_;
  }
  void prepare() override {
    WithRegions::prepare();
    transport().on_peer_failure([this](NodeId peer) {
      EXPECT_EQ(peer, victim());
      EXPECT_EQ(++deaths_, 1);
      ticker_.reset();
      after_death();
    });
    chatter_.resize(nodes());
    transport().set_handler(
        kChatter, [this](NodeId from, std::span<const std::byte>, std::span<const std::byte>) {
          ++chatter_[from.value];
          for (unsigned n = 0; n < nodes() - 1; ++n)
            if (chatter_[n] < 5) return;
          node_.die();
        });
    transport().set_handler(kStillHere, [this](NodeId, std::span<const std::byte>,
                                               std::span<const std::byte>) { ++heard_; });
  }

 protected:
  size_t region_bytes() const override { return kRegion; }
  void start_with_regions() override {
    if (transport().self() == victim()) return;
    buffer_.resize(kRegion);
    ticker_ = transport().loop().every(std::chrono::milliseconds(1), [this] { bother_victim(); });
  }

 private:
  NodeId victim() const { return node_id(nodes() - 1); }

  void bother_victim() {
    static_cast<void>(transport().send(victim(), kChatter, {}, {}));
    if (operations_ > 3) return;
    ++operations_;
    transport().get(victim(), remote_[victim().value], 0, buffer_,
                    [this](Status) { --operations_; });
  }
  void after_death() {
    Status refused = transport().send(victim(), kChatter, {}, {});
    EXPECT_EQ(error_number(refused), EHOSTDOWN);
    ++operations_;
    transport().fetch_add(victim(), remote_[victim().value], 0, 1, [this](Result<uint64_t> r) {
      --operations_;
      EXPECT_EQ(error_number(r), EHOSTDOWN);
    });
    for (unsigned n = 0; n < nodes() - 1; ++n) {
      if (n == self()) continue;
      EXPECT_TRUE(transport().send(node_id(n), kStillHere, {}, {}));
    }
    const unsigned other = (self() + 1) % (nodes() - 1);
    transport().get(node_id(other), remote_[other], 0, buffer_, [this](Status got) {
      EXPECT_TRUE(got) << got.error().message();
      got_after_ = true;
    });
  }
  EventLoop::Timer ticker_;
  std::vector<std::byte> buffer_;
  int deaths_ = 0, operations_ = 0;
  std::vector<unsigned> chatter_;  // of each node
  unsigned heard_ = 0;
  bool got_after_ = false;
};

}  // namespace krg::test
