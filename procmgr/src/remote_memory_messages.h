// The messages of RemoteMemory: promises of memory (to node 0), and the sets of programs (from a
// program's node to all others). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

#include "krg/procmgr/node_context.h"

namespace krg {

// Reply: ENOMEM when so much has not been left.
struct ReserveMemory {
  static constexpr uint16_t kId = message_ids::kRemoteMemory;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t pages = 0;
};
struct ReturnMemory {
  static constexpr uint16_t kId = message_ids::kRemoteMemory + 1;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t pages = 0;
};
// Pages of this set may come to you from now on. Answered when they may.
struct OpenRemoteSet {
  static constexpr uint16_t kId = message_ids::kRemoteMemory + 2;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
  uint64_t pages = 0;
};
struct GrowRemoteSet {
  static constexpr uint16_t kId = message_ids::kRemoteMemory + 3;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
  uint64_t pages = 0;
};
struct DropRemoteSet {
  static constexpr uint16_t kId = message_ids::kRemoteMemory + 4;
  uint8_t version = 1;
  uint8_t unused[7] = {};
  uint64_t set = 0;
};
static_assert(sizeof(ReserveMemory) == 16 && sizeof(ReturnMemory) == 16 &&
              sizeof(OpenRemoteSet) == 24 && sizeof(GrowRemoteSet) == 24 &&
              sizeof(DropRemoteSet) == 16);

}  // namespace krg
