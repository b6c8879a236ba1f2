// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim_network.h"

#include <utility>

namespace krg::kddm {
namespace {

constexpr unsigned kMostSpells = 7;  // how long channels stay slow: 16 deliveries, or 32, ...
constexpr unsigned kOneOfSlow = 4;   // of so many channels one is slow
constexpr unsigned kTries = 12;      // picks before a slow one is taken

}  // namespace

void SimNetwork::send(Packet packet) {
  auto [at, fresh] = channel_of_.try_emplace(packet.from << 16 | packet.to, channels_.size());
  if (fresh) channels_.push_back({packet.from, packet.to, 0, {}});
  Channel& channel = channels_[at->second];
  if (channel.packets.empty()) {
    channel.busy_at = busy_.size();
    busy_.push_back(at->second);
  }
  channel.packets.push_back(std::move(packet));
}

bool SimNetwork::is_slow(size_t channel) const {
  return ((channel + 1) * 0x9e3779b97f4a7c15ull ^ salt_) % 1021 % kOneOfSlow == 0;
}

std::optional<SimNetwork::Packet> SimNetwork::take() {
  if (busy_.empty()) return std::nullopt;
  if (spell_-- == 0) {
    spell_ = uint64_t{16} << pick(kMostSpells);
    salt_ = random_();
  }
  size_t chosen = busy_[pick(busy_.size())];
  for (unsigned i = 1; i < kTries && is_slow(chosen); ++i) chosen = busy_[pick(busy_.size())];
  auto& packets = channels_[chosen].packets;
  const auto at = packets.begin() + (in_order_ ? 0 : pick(packets.size()));
  Packet packet = std::move(*at);
  packets.erase(at);
  if (packets.empty()) leave_busy(chosen);
  return packet;
}

std::optional<SimNetwork::Packet> SimNetwork::take_rest_of_run(const Packet& before) {
  const size_t channel = channel_of_.at(before.from << 16 | before.to);
  auto& packets = channels_[channel].packets;
  if (packets.empty()) return std::nullopt;
  const Packet& next = packets.front();
  if (next.object != before.object + 1 || next.message.type != before.message.type)
    return std::nullopt;
  Packet packet = std::move(packets.front());
  packets.pop_front();
  if (packets.empty()) leave_busy(channel);
  return packet;
}

void SimNetwork::leave_busy(size_t channel) {
  const size_t place = channels_[channel].busy_at;
  busy_[place] = busy_.back();
  channels_[busy_[place]].busy_at = place;
  busy_.pop_back();
}

void SimNetwork::lose_node(unsigned node) {
  for (size_t i = 0; i < channels_.size(); ++i) {
    auto& packets = channels_[i].packets;
    if (packets.empty()) continue;
    if (channels_[i].to == node) {
      packets.clear();
    } else if (channels_[i].from == node) {
      packets.resize(pick(packets.size() + 1));
    }
    if (packets.empty()) leave_busy(i);
  }
}

}  // namespace krg::kddm
