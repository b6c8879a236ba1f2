// How protocol messages travel: a fixed struct; behind it the copyset of a gift, then the object's
// bytes. Messages about neighbours that say the same are one Wire, a run. Several messages for one
// node travel as a Batch.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/shmem/kddm_protocol.h"

namespace krg::kddm {

// KDDM's message ids start here; the other ones stand beside the structs that use them.
inline constexpr uint16_t kMessageIds = 192;

struct Wire {
  static constexpr uint16_t kId = kMessageIds;
  uint8_t version = 1;
  uint8_t type = 0;  // MessageType, or kNoteType
  uint8_t flags = 0;
  uint8_t reserved = 0;
  uint16_t requester = 0;
  uint16_t copyset_size = 0;
  uint32_t acks = 0;
  uint32_t run = 1;  // objects from `object` on; their bytes stand one behind the other
  uint64_t set = 0;
  uint64_t object = 0;
  uint64_t object_version = 0;
  uint64_t promise = 0;
};
static_assert(sizeof(Wire) == 48);

// Whether `next` says about the object behind this run what the run says.
bool goes_on(const Wire& run, const Wire& next);

// The struct, and the copyset as it stands at the payload's beginning.
Wire encode(SetId set, ObjectId object, const Message& message);
std::string encode_copyset(const Message& message);

struct Decoded {
  Message message;
  std::string_view data;
};
// Of a run: the first message, and all bytes. Errors: EBADMSG when it does not keep the format.
Result<Decoded> decode(const Wire& wire, std::string_view payload);

// Not of the protocol: the owner's word to an object's manager, and to the node that would follow
// it, that the object exists from this version on, or does not any more.
inline constexpr uint8_t kNoteType = 64;
struct ExistenceNote {
  SetId set;
  ObjectId object;
  uint64_t version = 0;
  uint16_t slot = 0;  // the object's place in the ring of managers
  bool exists = false;
};
Wire encode(const ExistenceNote& note);
ExistenceNote decode_note(const Wire& wire);

// Payload: `count` times a Wire, the length of its payload (uint32_t), its payload.
struct Batch {
  static constexpr uint16_t kId = kMessageIds + 1;
  uint8_t version = 1;
  uint8_t reserved[3] = {};
  uint32_t count = 0;
};
static_assert(sizeof(Batch) == 8);

void append_to_batch(std::string& batch, const Wire& wire, std::string_view payload);
// Calls `each` for the messages of a batch in order. Errors: EBADMSG.
Status for_each_in_batch(const Batch& batch, std::string_view payload,
                         const std::function<void(const Wire&, std::string_view)>& each);

}  // namespace krg::kddm
