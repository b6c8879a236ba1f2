// RecoveryRun: what the survivors do together when nodes have died (kddm_recovery.cpp has the
// decisions themselves). All go through the same phases; a node enters the next one when all
// survivors have told it that they are through with this one. Markers carry the set of the dead
// that they are about, and are ordered with what their sender sent before.
//
//   flushing  in rounds: everybody sends a marker with the number of messages sent since the last
//             one, and goes on when a round says that nobody sent any: nothing is under way then
//   reported  what each node has of each object has gone to the object's new manager
//   decided   the managers' decisions have gone to who reported
//   applied   the decisions are carried out; what follows from them waits
//
// Another death starts all over with the larger set. Nobody goes on before all have applied: so a
// decision that one node acts on is one that all have carried out.
//
// Who does not answer is found dead by Membership, which every survivor hears of: so it ends.
// Threads: the loop's thread. Owned by Kddm. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "kddm_server.h"

namespace krg::kddm {

// One object as it travels in a recovery: a Report or a Decision.
struct RecoveryItem {
  enum : uint8_t { kOwner = 1, kCopy = 2, kPinned = 4, kExists = 8, kLost = 16 };
  uint64_t set = 0;
  uint64_t object = 0;
  uint64_t object_version = 0;
  uint16_t acks = 0;
  uint16_t slot = 0;
  NodeId owner;  // of a Decision
  uint8_t flags = 0;
  uint8_t unused = 0;

  static RecoveryItem of(SetId set, ObjectId object, uint16_t slot, const Report& report) {
    return {
        .set = set.value,
        .object = object.value,
        .object_version = report.version,
        .slot = slot,
        .owner = report.node,
        .flags = static_cast<uint8_t>((report.owner ? kOwner : 0) | (report.copy ? kCopy : 0) |
                                      (report.pinned ? kPinned : 0) |
                                      (report.exists ? kExists : 0) | (report.lost ? kLost : 0))};
  }
  static RecoveryItem of(SetId set, ObjectId object, uint16_t slot, const Decision& decision) {
    return {.set = set.value,
            .object = object.value,
            .object_version = decision.version,
            .acks = static_cast<uint16_t>(decision.acks),
            .slot = slot,
            .owner = decision.owner,
            .flags = static_cast<uint8_t>((decision.exists ? kExists : 0) |
                                          (decision.lost ? kLost : 0))};
  }
  Report report(NodeId from) const {
    return {.node = from,
            .owner = (flags & kOwner) != 0,
            .copy = (flags & kCopy) != 0,
            .pinned = (flags & kPinned) != 0,
            .exists = (flags & kExists) != 0,
            .lost = (flags & kLost) != 0,
            .version = object_version};
  }
  Decision decision() const {
    return {.owner = owner,
            .lost = (flags & kLost) != 0,
            .version = object_version,
            .exists = (flags & kExists) != 0,
            .acks = acks};
  }
};
static_assert(sizeof(RecoveryItem) == 32);

class RecoveryRun : public std::enable_shared_from_this<RecoveryRun> {
 public:
  explicit RecoveryRun(std::shared_ptr<Server> server);
  // Takes the messages. Once, after it is owned.
  void start();
  void node_died(NodeId node);
  // Recoveries that ended.
  uint64_t finished() const { return finished_; }

 private:
  enum class Phase : uint8_t { kIdle, kFlushing, kReported, kDecided, kApplied };
  struct Marker;
  struct Chunk;
  using Items = std::vector<RecoveryItem>;
  struct Peer {
    std::vector<NodeId> dead;             // what its markers are about
    std::map<uint32_t, uint64_t> rounds;  // of flushing: messages sent since the last one
    Phase passed = Phase::kIdle;
    Items reports, decisions;
  };

  void marker_came(NodeId from, const Marker& marker, std::string_view payload);
  void chunk_came(NodeId from, const Chunk& chunk, std::string_view payload);
  void begin();
  void advance();
  bool round_is_complete() const;
  bool round_was_quiet() const;
  bool all_passed(Phase phase) const;
  bool takes_part(NodeId node) const { return !server_->is_muted(node); }
  void next_round();
  void enter(Phase phase);
  void send_reports();
  void send_decisions();
  void apply_decisions();
  void send_items(Phase phase, std::vector<Items>& items);
  void tell_all(const Marker& marker);

  std::shared_ptr<Server> server_;
  Messenger& messenger_;
  std::vector<Peer> peers_;
  std::vector<NodeId> dead_;
  Phase phase_ = Phase::kIdle;
  uint32_t round_ = 0;
  uint64_t added_before_ = 0;  // the outbox's count at the last marker
  uint64_t finished_ = 0;
};

}  // namespace krg::kddm
