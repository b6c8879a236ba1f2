// What the first process of a restart is told of sockets (launcher/src/restart_sockets.h).
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "krg/procmgr/process_family.h"
#include "krg/runtime/hex.h"

namespace krg {

// Options that are zero are what a new socket has.
inline nlohmann::json options_for_plan(const FamilySocket& socket) {
  nlohmann::json options = nlohmann::json::array();
  for (const SocketOption& option : socket.options) {
    const std::string_view value(option.value.data(),
                                 std::min<size_t>(option.bytes, option.value.size()));
    if (std::any_of(value.begin(), value.end(), [](char byte) { return byte != 0; }))
      options.push_back({option.level, option.name, to_hex(value)});
  }
  return options;
}

inline nlohmann::json sockets_for_plan(const ProcessFamily& family) {
  nlohmann::json sockets = nlohmann::json::array();
  for (uint32_t i = 0; i < family.sockets.size(); ++i) {
    const FamilySocket& socket = family.sockets[i];
    sockets.push_back({{"state", static_cast<unsigned>(socket.state)},
                       {"domain", socket.domain},
                       {"type", socket.type},
                       {"protocol", socket.protocol},
                       {"backlog", socket.backlog},
                       {"peer", socket.peer},
                       {"name", to_hex(socket.name)},
                       {"peer_name", to_hex(socket.peer_name)},
                       {"folder", socket.folder},
                       {"options", options_for_plan(socket)}});
  }
  return sockets;
}

}  // namespace krg
