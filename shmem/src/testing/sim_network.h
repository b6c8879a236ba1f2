// SimNetwork: the simulator's network. Messages of one pair of nodes arrive in order, each exactly
// once, as our transports deliver them (a transport that duplicated or reordered within a pair
// would fail the conformance suite); those of different pairs in any order. For a while at a time
// some pairs are slow: others overtake them by far.
//
// Owned by SimCluster. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <random>
#include <unordered_map>
#include <vector>

#include "krg/shmem/kddm_protocol.h"

namespace krg::kddm {

class SimNetwork {
 public:
  struct Packet {
    unsigned from = 0, to = 0;
    unsigned object = 0;
    Message message;
    uint64_t data = 0;  // the object's bytes, where the message brings them
  };

  explicit SimNetwork(std::mt19937_64& random) : random_(random) {}

  void send(Packet packet);
  // The next packet of some pair, chosen at random; none when nothing is under way.
  std::optional<Packet> take();
  // What has been sent behind `before`, the same about the next object: the rest of a run.
  std::optional<Packet> take_rest_of_run(const Packet& before);
  bool empty() const { return busy_.empty(); }
  // A node has died: what is under way to it is lost, and what it sent, from some point on.
  void lose_node(unsigned node);
  // Lets packets of one pair overtake each other: a fault that the simulator must find.
  void break_order() { in_order_ = false; }

 private:
  struct Channel {
    unsigned from = 0, to = 0;
    size_t busy_at = 0;  // its place in busy_
    std::deque<Packet> packets;
  };
  bool is_slow(size_t channel) const;
  void leave_busy(size_t channel);
  unsigned pick(size_t below) { return static_cast<unsigned>(random_() % below); }

  std::mt19937_64& random_;
  std::unordered_map<uint32_t, size_t> channel_of_;  // from and to; never walked through
  std::vector<Channel> channels_;
  std::vector<size_t> busy_;  // channels that have packets
  uint64_t salt_ = 0;         // says which channels are slow now
  uint64_t spell_ = 0;        // deliveries until others are
  bool in_order_ = true;
};

}  // namespace krg::kddm
