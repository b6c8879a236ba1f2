// The way by which a team's synchronisation leaves this node. A team whose members are all here has
// none: then nothing of this is called, and each place where it would be costs one test of a
// pointer that is null. Members on another node are known there only; the two sides tell each
// other by messages, never by memory that both read.
//
// Calls come from the member that made the condition true, which may hold the team's task mutex: an
// implementation only sends, or answers from what it knows; it does not wait for members here.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <cstdint>

namespace krg::omp {

struct Team;
enum class BarrierKind : std::uint8_t { inner, end };

class TeamTransport {
 public:
  virtual ~TeamTransport() = default;

  // The master is here and has described the region; members of other nodes begin with it.
  virtual void begin_elsewhere(Team& team) = 0;

  // All members of this node have arrived, and no task of theirs is left. When that is true of
  // every node, each calls release_generation.
  virtual void arrived_here(Team& team, BarrierKind kind) = 0;

  // A member here is the first of this node that comes to the team's single construct `number`:
  // whether it is the first of all nodes.
  virtual bool claims_single(Team& team, std::uint32_t number) = 0;
};

// Every node's members have arrived; those of this node go on. Any thread of this node.
void release_generation(Team& team, BarrierKind kind);

}  // namespace krg::omp
