// How a protocol message travels: a fixed struct; behind it the copyset of a gift, then the
// object's bytes. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/shmem/kddm_protocol.h"

namespace krg::kddm {

struct Wire {
  static constexpr uint16_t kId = 192;
  uint8_t version = 1;
  uint8_t type = 0;
  uint8_t flags = 0;
  uint8_t reserved = 0;
  uint16_t requester = 0;
  uint16_t copyset_size = 0;
  uint32_t acks = 0;
  uint32_t reserved2 = 0;
  uint64_t set = 0;
  uint64_t object = 0;
  uint64_t object_version = 0;
  uint64_t promise = 0;
};
static_assert(sizeof(Wire) == 48);

// The struct, and the copyset as it stands at the payload's beginning.
Wire encode(SetId set, ObjectId object, const Message& message);
std::string encode_copyset(const Message& message);

struct Decoded {
  Message message;
  std::string_view data;
};
// Errors: EBADMSG when the message does not keep the format.
Result<Decoded> decode(const Wire& wire, std::string_view payload);

}  // namespace krg::kddm
