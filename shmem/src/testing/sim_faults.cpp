// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim_faults.h"

#include <array>
#include <cstddef>

namespace krg::kddm {

std::string_view name_of(Fault fault) {
  static constexpr std::array<std::string_view, kFaultCount> kNames = {"none",
                                                                       "keep a stale copy",
                                                                       "ack a pinned copy",
                                                                       "lose an ack",
                                                                       "ack twice",
                                                                       "count an ack less",
                                                                       "forget a reader",
                                                                       "keep an overtaken copy",
                                                                       "send old bytes",
                                                                       "forget the tail",
                                                                       "grant every gift",
                                                                       "forget a gift's copyset",
                                                                       "duplicate a message",
                                                                       "reorder a pair's messages",
                                                                       "shift a run's bytes"};
  return kNames[static_cast<size_t>(fault)];
}

void FaultInjector::change_step(Entry& entry, Actions& actions) {
  if (fault_ == Fault::kNone) return;
  for (size_t i = 0; i < actions.size(); ++i) {
    if (actions[i].kind != Action::Kind::kSend) continue;
    Message& message = actions[i].message;
    if (message.type == MessageType::kInvalidateAck) {
      if (strikes(Fault::kLoseAck)) {
        actions.erase(actions.begin() + static_cast<std::ptrdiff_t>(i--));
      } else if (strikes(Fault::kAckTwice)) {
        const Action again = actions[i];
        actions.insert(actions.begin() + static_cast<std::ptrdiff_t>(i++), again);
      }
    } else if (message.type == MessageType::kOwnership && message.acks > 0 &&
               strikes(Fault::kCountAckLess)) {
      --message.acks;
    } else if (message.type == MessageType::kCopy && strikes(Fault::kForgetReader)) {
      entry.copyset.erase(actions[i].to);
    } else if (message.type == MessageType::kGift && strikes(Fault::kForgetGiftCopyset)) {
      message.copyset.clear();
    }
  }
}

uint64_t FaultInjector::change_bytes(const Message& message, uint64_t data) {
  const bool whole = message.type == MessageType::kOwnership || message.type == MessageType::kGift;
  if (message.with_data && data > 1 && whole && strikes(Fault::kSendOldBytes)) return data - 1;
  return data;
}

bool FaultInjector::replace_receive(Entry& entry, const Message& message, Actions& actions) {
  if (message.type == MessageType::kCopy && strikes(Fault::kKeepOvertakenCopy))
    entry.invalid_below = 0;
  if (message.type != MessageType::kInvalidate) return false;
  const bool keep = entry.has_data && entry.readers == 0 && strikes(Fault::kKeepStaleCopy);
  const bool pinned = entry.readers > 0 && strikes(Fault::kAckPinnedCopy);
  if (!keep && !pinned) return false;
  if (pinned) entry.drop_when_unpinned = true;
  actions.push_back({.kind = Action::Kind::kSend,
                     .to = message.requester,
                     .message = {.type = MessageType::kInvalidateAck}});
  return true;
}

void FaultInjector::change_direction(const DirectoryEntry& before, DirectoryEntry& after,
                                     Actions& actions) {
  if (fault_ == Fault::kNone) return;
  for (Action& action : actions) {
    if (action.message.type == MessageType::kWriteRequest && strikes(Fault::kForgetTail))
      after.tail = before.tail;
    if (action.message.type == MessageType::kGiveRefused && strikes(Fault::kGrantEveryGift))
      action.message.type = MessageType::kGiveGranted;
  }
}

}  // namespace krg::kddm
