// SpreadAgain: what of a spread process is not in its image as an ordinary one: where its threads
// ran, to which processors they were bound, and what krgd knew of its OpenMP teams. Kept in
// checkpoints. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "packed_bytes.h"

namespace krg {

struct SpreadAgain {
  static constexpr uint8_t kFormatVersion = 2;
  static constexpr uint8_t kNoBounds = 1;     // an older one
  static constexpr uint8_t kWithRestart = 3;  // in no checkpoint
  enum class ComeHome : uint8_t { kAsBefore, kNo, kYes };

  uint32_t nodes = 0;              // that it had a part on
  std::map<pid_t, NodeId> places;  // of its threads
  std::map<pid_t, std::set<unsigned>>
      bounds;         // of those that asked for it: by the cluster's numbers
  std::string teams;  // TeamServer::save(); empty: it never had one
  uint32_t job = 0;   // in which it is restarted; 0: nothing is known of that
  ComeHome come_home = ComeHome::kAsBefore;

  // As KRG_GATHER says it, `before` being what the process has in its environment, which the job
  // made that it was started in. Empty: its threads stay.
  std::string gathers_for(const std::string& before) const {
    const bool as_before = come_home == ComeHome::kAsBefore && !before.empty();
    if (job == 0) return before;
    return as_before || come_home == ComeHome::kYes ? std::to_string(job) : "";
  }

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
    const auto bound = version == kNoBounds ? 0 : in.get<uint32_t>();
    for (uint32_t i = 0; i < bound && in.ok(); ++i) {
      auto& processors = again.bounds[in.get<pid_t>()];
      for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left)
        processors.insert(in.get<unsigned>());
    }
    if (version == kWithRestart) {
      again.job = in.get<uint32_t>();
      again.come_home = in.get<ComeHome>();
    }
    if (version == 0 || version > kWithRestart || !in.ok() || !in.at_end())
      return errno_error("state of a spread process", EBADMSG);
    return again;
  }
  std::string serialize() const {
    PackedWriter out;
    out.put(job == 0 ? kFormatVersion : kWithRestart)
        .put(nodes)
        .put(static_cast<uint32_t>(places.size()));
    for (const auto& [tid, node] : places) out.put(tid).put(node);
    out.put_string(teams).put(static_cast<uint32_t>(bounds.size()));
    for (const auto& [tid, processors] : bounds) {
      out.put(tid).put(static_cast<uint32_t>(processors.size()));
      for (unsigned processor : processors) out.put(processor);
    }
    if (job != 0) out.put(job).put(come_home);
    return out.take();
  }
};

}  // namespace krg
