// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_recovery_run.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "krg/runtime/log.h"

namespace krg::kddm {
namespace {

constexpr size_t kItemsPerChunk = 8192;

}  // namespace

// Payload: the dead nodes' numbers (uint16_t), ascending.
struct RecoveryRun::Marker {
  static constexpr uint16_t kId = kMessageIds + 2;
  uint8_t version = 1;
  Phase phase = Phase::kIdle;
  uint16_t unused = 0;
  uint32_t round = 0;  // of flushing, from 1
  uint64_t sent = 0;   // messages since the marker of the round before
};

// Payload: RecoveryItems. It belongs to the dead set of its sender's last marker.
struct RecoveryRun::Chunk {
  static constexpr uint16_t kId = kMessageIds + 3;
  uint8_t version = 2;
  Phase phase = Phase::kIdle;
  uint16_t unused = 0;
  uint32_t count = 0;
};

RecoveryRun::RecoveryRun(std::shared_ptr<Server> server)
    : server_(std::move(server)), messenger_(server_->messenger), peers_(messenger_.node_count()) {}

void RecoveryRun::start() {
  static_assert(sizeof(Marker) == 16 && sizeof(Chunk) == 8 && sizeof(RecoveryItem) == 32);
  auto weak = weak_from_this();
  // A marker is behind the messages that were sent before it, be it that these wait here.
  messenger_.on<Marker>([weak](NodeId from, const Marker& marker, std::string_view payload) {
    if (auto self = weak.lock())
      self->server_->in_turn([weak, from, marker, payload = std::string(payload)] {
        if (auto alive = weak.lock()) alive->marker_came(from, marker, payload);
      });
  });
  messenger_.on<Chunk>([weak](NodeId from, const Chunk& chunk, std::string_view payload) {
    if (auto self = weak.lock())
      self->server_->in_turn([weak, from, chunk, payload = std::string(payload)] {
        if (auto alive = weak.lock()) alive->chunk_came(from, chunk, payload);
      });
  });
}

void RecoveryRun::node_died(NodeId node) {
  if (server_->is_muted(node) || node == messenger_.self()) return;
  log_info("kddm", "node {} died: its objects go over to who has copies", node.value);
  server_->mute(node);
  peers_[node.value] = {};  // what it said about an earlier loss does not count any more
  dead_.insert(std::lower_bound(dead_.begin(), dead_.end(), node), node);
  begin();
  advance();
}

void RecoveryRun::begin() {
  if (server_->mode() == Server::Mode::kHalted) {
    server_->flush_out_again();
  } else {
    server_->flush_out();
  }
  phase_ = Phase::kFlushing;
  round_ = 0;
  next_round();
}

void RecoveryRun::next_round() {
  ++round_;
  // Before the first marker anything may be under way.
  const uint64_t sent = round_ == 1 ? 1 : server_->outbox.added() - added_before_;
  added_before_ = server_->outbox.added();
  tell_all({.phase = Phase::kFlushing, .round = round_, .sent = sent});
}

void RecoveryRun::tell_all(const Marker& marker) {
  const std::string_view dead(reinterpret_cast<const char*>(dead_.data()),
                              dead_.size() * sizeof(NodeId));
  for (unsigned n = 0; n < peers_.size(); ++n) {
    const NodeId node{static_cast<uint16_t>(n)};
    // Who cannot be reached is found dead.
    if (takes_part(node)) static_cast<void>(messenger_.send(node, marker, dead));
  }
}

void RecoveryRun::marker_came(NodeId from, const Marker& marker, std::string_view payload) {
  if (!takes_part(from)) return;
  std::vector<NodeId> dead(payload.size() / sizeof(NodeId));
  std::memcpy(dead.data(), payload.data(), dead.size() * sizeof(NodeId));
  Peer& peer = peers_[from.value];
  if (peer.dead != dead) {
    peer = {};
    peer.dead = std::move(dead);
  }
  if (marker.phase == Phase::kFlushing) {
    peer.rounds[marker.round] = marker.sent;
  } else {
    peer.passed = marker.phase;
  }
  advance();
}

void RecoveryRun::chunk_came(NodeId from, const Chunk& chunk, std::string_view payload) {
  if (!takes_part(from)) return;
  Peer& peer = peers_[from.value];
  auto& items = chunk.phase == Phase::kReported ? peer.reports : peer.decisions;
  const size_t before = items.size(), count = payload.size() / sizeof(RecoveryItem);
  items.resize(before + count);
  std::memcpy(items.data() + before, payload.data(), count * sizeof(RecoveryItem));
}

bool RecoveryRun::round_is_complete() const {
  for (unsigned n = 0; n < peers_.size(); ++n)
    if (takes_part(NodeId{static_cast<uint16_t>(n)}) &&
        (peers_[n].dead != dead_ || !peers_[n].rounds.count(round_)))
      return false;
  return true;
}

bool RecoveryRun::round_was_quiet() const {
  for (unsigned n = 0; n < peers_.size(); ++n)
    if (takes_part(NodeId{static_cast<uint16_t>(n)}) && peers_[n].rounds.at(round_) != 0)
      return false;
  return true;
}

bool RecoveryRun::all_passed(Phase phase) const {
  for (unsigned n = 0; n < peers_.size(); ++n)
    if (takes_part(NodeId{static_cast<uint16_t>(n)}) &&
        (peers_[n].dead != dead_ || peers_[n].passed < phase))
      return false;
  return true;
}

void RecoveryRun::advance() {
  if (phase_ == Phase::kFlushing) {
    if (!round_is_complete()) return;
    if (!round_was_quiet()) return next_round();  // our own marker comes to us, too
    server_->halt();
    send_reports();
    enter(Phase::kReported);
  } else if (phase_ == Phase::kReported && all_passed(Phase::kReported)) {
    send_decisions();
    enter(Phase::kDecided);
  } else if (phase_ == Phase::kDecided && all_passed(Phase::kDecided)) {
    apply_decisions();
    enter(Phase::kApplied);
  } else if (phase_ == Phase::kApplied && all_passed(Phase::kApplied)) {
    phase_ = Phase::kIdle;
    ++finished_;
    log_info("kddm", "objects are available again");
    server_->resume();
  }
}

void RecoveryRun::enter(Phase phase) {
  phase_ = phase;
  tell_all({.phase = phase});
}

void RecoveryRun::send_items(Phase phase, std::vector<Items>& items) {
  for (unsigned n = 0; n < items.size(); ++n)
    for (size_t at = 0; at < items[n].size(); at += kItemsPerChunk) {
      const size_t count = std::min(kItemsPerChunk, items[n].size() - at);
      const std::string_view payload(reinterpret_cast<const char*>(items[n].data() + at),
                                     count * sizeof(RecoveryItem));
      static_cast<void>(
          messenger_.send(NodeId{static_cast<uint16_t>(n)},
                          Chunk{.phase = phase, .count = static_cast<uint32_t>(count)}, payload));
    }
}

void RecoveryRun::send_reports() {
  std::vector<Items> items(peers_.size());
  for (const auto& [number, set] : server_->sets())
    for (const auto& [number_in_set, object] : set->objects) {
      const ObjectId id{number_in_set};
      const uint16_t slot = server_->slot_of(*set, id);
      const NodeId manager = server_->next_ring().manager(slot);
      items[manager.value].push_back(
          RecoveryItem::of(set->id, id, slot, report(object.entry, {messenger_.self(), manager})));
    }
  send_items(Phase::kReported, items);
}

void RecoveryRun::send_decisions() {
  struct Reported {
    uint16_t slot;
    std::vector<Report> reports;
  };
  std::map<std::pair<uint64_t, uint64_t>, Reported> reported;
  const auto of = [&](uint64_t set, uint64_t object, uint16_t slot) -> auto& {
    return reported.try_emplace({set, object}, Reported{slot, {}}).first->second.reports;
  };
  for (unsigned n = 0; n < peers_.size(); ++n)
    for (const RecoveryItem& item : peers_[n].reports)
      of(item.set, item.object, item.slot).push_back(item.report(NodeId{static_cast<uint16_t>(n)}));
  // What only a dead node had.
  for (const auto& [set, objects] : server_->existence())
    for (const auto& [object, known] : objects)
      if (known.exists && server_->next_ring().manager(known.slot) == messenger_.self())
        of(set, object, known.slot);
  for (const auto& [number, set] : server_->sets())
    for (const auto& [object, promised] : set->directory)
      if (server_->is_muted(promised.tail))
        of(number, object, server_->slot_of(*set, ObjectId{object}));
  std::vector<Items> items(peers_.size());
  size_t lost = 0;
  for (const auto& [key, object] : reported) {
    const SetId set{key.first};
    const ObjectId id{key.second};
    const Decision decision = decide(object.reports, messenger_.self(), server_->existed(set, id));
    std::set<NodeId> told = {messenger_.self()};
    for (const Report& report : object.reports) told.insert(report.node);
    // Who becomes the manager after us is to know of a loss before anybody is told of it.
    if (decision.lost) told.insert(server_->next_ring().mirror(object.slot));
    for (const NodeId node : told)
      items[node.value].push_back(RecoveryItem::of(set, id, object.slot, decision));
    lost += decision.lost;
  }
  if (lost > 0) log_warn("kddm", "{} objects were lost with their node", lost);
  send_items(Phase::kDecided, items);
}

void RecoveryRun::apply_decisions() {
  server_->adopt_ring();
  server_->forget_early();
  for (const auto& [number, set] : server_->sets()) set->directory.clear();
  for (Peer& peer : peers_) {
    for (const RecoveryItem& item : peer.decisions) {
      const ObjectId object{item.object};
      const Decision decision = item.decision();
      if (decision.lost) server_->note_loss(SetId{item.set}, object, item.slot, decision.version);
      if (Set* set = server_->find_set(SetId{item.set})) {
        server_->apply(*set, object, decision);
      } else {
        server_->late_decisions[item.set].push_back({object, decision});
      }
    }
    peer.reports.clear();
    peer.decisions.clear();
  }
  server_->mirror_notes();
}

}  // namespace krg::kddm
