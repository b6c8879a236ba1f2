// Messages between the launcher parts of krgd (ids: message_ids::kSession).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

#include "krg/procmgr/node_context.h"

namespace krg {

// Request: kill what the job has on this node. Reply: the number of processes killed, in decimal,
// when none is left.
struct EndJobMessage {
  static constexpr uint16_t kId = message_ids::kSession;
  uint8_t version = 1;
  uint8_t padding[3] = {};
  uint32_t job = 0;
};
static_assert(sizeof(EndJobMessage) == 8);

// Notice to node 0: this node's session is ready for programs.
struct NodeReadyMessage {
  static constexpr uint16_t kId = message_ids::kSession + 1;
  uint8_t version = 1;
};
static_assert(sizeof(NodeReadyMessage) == 1);

// Request: end the session and exit. Reply: none is waited for but its arrival.
struct ShutdownMessage {
  static constexpr uint16_t kId = message_ids::kSession + 2;
  uint8_t version = 1;
};
static_assert(sizeof(ShutdownMessage) == 1);

}  // namespace krg
