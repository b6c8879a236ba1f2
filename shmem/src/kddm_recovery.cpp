// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>

#include "kddm_steps.h"
#include "krg/runtime/check.h"

namespace krg::kddm {

namespace {

// Local readers still use what was lost since: they owe nobody an ack, and hold up nobody.
bool reads_lost_object(const Entry& entry) {
  return entry.readers > 0 && entry.drop_when_unpinned && entry.deferred_acks.empty();
}

}  // namespace

Report report(const Entry& entry, const Place& place) {
  const bool owner = is_owner(entry);
  return {.node = place.self,
          .owner = owner,
          // A copy that still owes its ack is current: no write can have begun.
          .copy = !owner && entry.has_data &&
                  (!entry.drop_when_unpinned || !entry.deferred_acks.empty()),
          .pinned = !owner && entry.readers > 0 && !reads_lost_object(entry),
          .exists = owner && entry.state != State::kInvOwner && entry.state != State::kInvFilling,
          .lost = owner && entry.lost,
          .version = std::max(entry.version, entry.invalid_below)};
}

Decision decide(const std::vector<Report>& reports, NodeId manager, bool existed) {
  Decision decision{.owner = kNoNode};
  for (const Report& report : reports) {
    decision.version = std::max(decision.version, report.version + 1);
    if (!report.owner) continue;
    decision.owner = report.node;
    decision.exists = report.exists;
    decision.lost = report.lost;
  }
  // Valid copies are all of the same version: a write waits until there are no others.
  for (const Report& report : reports)
    if (decision.owner == kNoNode && report.copy) {
      decision.owner = report.node;
      decision.exists = true;
    }
  if (decision.owner == kNoNode) {
    decision.owner = manager;
    decision.lost = existed;
  }
  for (const Report& report : reports)
    decision.acks += decision.exists && report.pinned && report.node != decision.owner;
  return decision;
}

namespace {

void recover_as_owner(Entry& entry, const Decision& decision, Actions& actions) {
  entry.copyset.clear();
  entry.version = decision.version;
  entry.acks_missing = static_cast<int>(decision.acks);
  if (entry.state == State::kInvOwner) entry.lost = decision.lost;
  if (entry.state == State::kInvFilling || entry.state == State::kInvOwner) return;
  if (entry.state == State::kWaitObjRmAck) {
    entry.remover = kNoNode;
    if (entry.acks_missing == 0) finish_removal(entry, actions);
    return;
  }
  entry.deferred_acks.clear();
  entry.drop_when_unpinned = false;
  if (!is_owner(entry) && !decision.exists) {
    entry.state = State::kInvOwner;
    entry.lost = decision.lost;
    return;
  }
  entry.state = entry.acks_missing > 0 ? State::kWaitAckWrite : State::kWriteOwner;
}

void recover_as_other(Entry& entry, const Decision& decision, Actions& actions) {
  check(!is_owner(entry), "the survivors have one owner");
  const bool owes_ack = decision.exists && !reads_lost_object(entry);
  entry.acks_missing = 0;
  entry.deferred_acks.clear();
  if (entry.readers > 0) {
    entry.state = State::kReadCopy;
    entry.drop_when_unpinned = true;
    if (owes_ack) entry.deferred_acks.push_back(decision.owner);
  } else {
    entry.state = State::kInvCopy;
    drop_data(entry, actions);
  }
}

}  // namespace

void recover(Entry& entry, const Place& place, const Decision& decision, Actions& actions) {
  entry.requests.clear();
  entry.gift_to = kNoNode;
  entry.promise = 0;
  entry.read_outstanding = entry.write_outstanding = entry.serve_remote_first = false;
  entry.invalid_below = std::max(entry.invalid_below, decision.version);
  if (place.self == decision.owner) {
    recover_as_owner(entry, decision, actions);
  } else {
    recover_as_other(entry, decision, actions);
  }
  for (size_t i = 0; i < entry.removals.size(); ++i)
    send(actions, place.manager, {.type = MessageType::kRemoveRequest, .requester = place.self});
  progress(entry, place, actions);
}

}  // namespace krg::kddm
