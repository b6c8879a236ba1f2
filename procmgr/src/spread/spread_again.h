// SpreadAgain: what of a spread process is not in its image as an ordinary one: where its threads
// ran, and what krgd knew of its OpenMP teams. Kept in checkpoints. Threads: a value.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "packed_bytes.h"

namespace krg {

struct SpreadAgain {
  static constexpr uint8_t kFormatVersion = 1;

  uint32_t nodes = 0;              // that it had a part on
  std::map<pid_t, NodeId> places;  // of its threads
  std::string teams;               // TeamServer::save(); empty: it never had one

  // Error: EBADMSG.
  static Result<SpreadAgain> parse(std::string_view bytes) {
    PackedReader in(bytes);
    SpreadAgain again;
    const auto version = in.get<uint8_t>();
    again.nodes = in.get<uint32_t>();
    const auto count = in.get<uint32_t>();
    for (uint32_t i = 0; i < count && in.ok(); ++i) {
      const auto tid = in.get<pid_t>();
      again.places[tid] = in.get<NodeId>();
    }
    again.teams = in.get_string();
    if (version != kFormatVersion || !in.ok() || !in.at_end())
      return errno_error("state of a spread process", EBADMSG);
    return again;
  }
  std::string serialize() const {
    PackedWriter out;
    out.put(kFormatVersion).put(nodes).put(static_cast<uint32_t>(places.size()));
    for (const auto& [tid, node] : places) out.put(tid).put(node);
    out.put_string(teams);
    return out.take();
  }
};

}  // namespace krg
