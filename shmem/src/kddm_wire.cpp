// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_wire.h"

#include <cstring>

namespace krg::kddm {
namespace {

enum Flag : uint8_t {
  kDirected = 1,
  kExists = 2,
  kLost = 4,
  kWithData = 8,
  kHasCopy = 16,
  kFirstTouch = 32,
};

}  // namespace

Wire encode(SetId set, ObjectId object, const Message& message) {
  Wire wire;
  wire.type = static_cast<uint8_t>(message.type);
  wire.flags = static_cast<uint8_t>(
      (message.directed ? kDirected : 0) | (message.exists ? kExists : 0) |
      (message.lost ? kLost : 0) | (message.with_data ? kWithData : 0) |
      (message.has_copy ? kHasCopy : 0) | (message.first_touch ? kFirstTouch : 0));
  wire.requester = message.requester.value;
  wire.copyset_size = static_cast<uint16_t>(message.copyset.size());
  wire.acks = message.acks;
  wire.set = set.value;
  wire.object = object.value;
  wire.object_version = message.version;
  wire.promise = message.promise;
  return wire;
}

bool goes_on(const Wire& run, const Wire& next) {
  Wire expected = run;
  expected.object = run.object + run.run;
  expected.run = 1;
  return run.copyset_size == 0 && std::memcmp(&expected, &next, sizeof next) == 0;
}

std::string encode_copyset(const Message& message) {
  std::string bytes;
  for (NodeId node : message.copyset)
    bytes.append(reinterpret_cast<const char*>(&node.value), sizeof node.value);
  return bytes;
}

Result<Decoded> decode(const Wire& wire, std::string_view payload) {
  const size_t copyset_bytes = wire.copyset_size * sizeof(uint16_t);
  if (wire.version != 1 || wire.type >= kMessageTypeCount || payload.size() < copyset_bytes ||
      wire.run == 0 || (wire.run > 1 && wire.copyset_size > 0))
    return errno_error("KDDM message", EBADMSG);
  Decoded decoded;
  decoded.message = {.type = static_cast<MessageType>(wire.type),
                     .requester = NodeId{wire.requester},
                     .directed = (wire.flags & kDirected) != 0,
                     .version = wire.object_version,
                     .exists = (wire.flags & kExists) != 0,
                     .lost = (wire.flags & kLost) != 0,
                     .with_data = (wire.flags & kWithData) != 0,
                     .has_copy = (wire.flags & kHasCopy) != 0,
                     .first_touch = (wire.flags & kFirstTouch) != 0,
                     .acks = wire.acks,
                     .promise = wire.promise};
  for (size_t i = 0; i < wire.copyset_size; ++i) {
    uint16_t node;
    std::memcpy(&node, payload.data() + i * sizeof node, sizeof node);
    decoded.message.copyset.insert(NodeId{node});
  }
  decoded.data = payload.substr(copyset_bytes);
  return decoded;
}

Wire encode(const ExistenceNote& note) {
  Wire wire;
  wire.type = kNoteType;
  wire.flags = note.exists ? kExists : 0;
  wire.requester = note.slot;
  wire.set = note.set.value;
  wire.object = note.object.value;
  wire.object_version = note.version;
  return wire;
}

ExistenceNote decode_note(const Wire& wire) {
  return {.set = SetId{wire.set},
          .object = ObjectId{wire.object},
          .version = wire.object_version,
          .slot = wire.requester,
          .exists = (wire.flags & kExists) != 0};
}

void append_to_batch(std::string& batch, const Wire& wire, std::string_view payload) {
  const uint32_t length = static_cast<uint32_t>(payload.size());
  batch.append(reinterpret_cast<const char*>(&wire), sizeof wire);
  batch.append(reinterpret_cast<const char*>(&length), sizeof length);
  batch.append(payload);
}

Status for_each_in_batch(const Batch& batch, std::string_view payload,
                         const std::function<void(const Wire&, std::string_view)>& each) {
  for (uint32_t i = 0; i < batch.count; ++i) {
    Wire wire;
    uint32_t length;
    if (payload.size() < sizeof wire + sizeof length) return errno_error("KDDM batch", EBADMSG);
    std::memcpy(&wire, payload.data(), sizeof wire);
    std::memcpy(&length, payload.data() + sizeof wire, sizeof length);
    payload.remove_prefix(sizeof wire + sizeof length);
    if (payload.size() < length) return errno_error("KDDM batch", EBADMSG);
    each(wire, payload.substr(0, length));
    payload.remove_prefix(length);
  }
  return {};
}

}  // namespace krg::kddm
