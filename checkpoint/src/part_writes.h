// The nodes' parts of a version that is being written (write_version.h), each written by its node.
// Threads: the loop's thread; files in workers. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "checkpoint_messages.h"
#include "krg/checkpoint/write_version.h"
#include "krg/procmgr/family_capture.h"

namespace krg {

// This node writes what it is asked to. REQUIRES: both outlive the messenger's handlers.
void add_part_writes(NodeContext& node, FamilyCaptures& captures);

// Has the node of `order` write what its large members have, while they run under `watch`
// (FamilyCaptures::live_pages()). Errors: those of LivePart::write(); EHOSTDOWN.
void request_live(NodeContext& node, const PartOrder& order, uint64_t watch,
                  const checkpoint_messages::Audience& audience, std::function<void(Status)> done);

// Has the node of `order` write its part, and tell `audience` of it. `watch`: of its live pages; 0:
// they are not to be used. Errors: those of write_part();
// EHOSTDOWN.
void request_part(NodeContext& node, const PartOrder& order,
                  const FamilyCaptures::Captured& captured, uint64_t watch,
                  const checkpoint_messages::Audience& audience,
                  std::function<void(Result<WrittenPart>)> done);

}  // namespace krg
