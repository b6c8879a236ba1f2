// lead_capture(): has all nodes of a family stop, tell and let go its members, and puts together
// what they tell (family_capture.h).
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "krg/procmgr/family_capture.h"

namespace krg {

struct CaptureOrder : FamilyCaptures::Order {
  uint64_t number = 0;
};

// When it fails, nodes may still hold members: drop_capture().
void lead_capture(const FamilyCaptureParts& parts, const CaptureOrder& order,
                  std::function<void(Result<FamilyCaptures::Captured>)> done);
// Every node lets go of it.
void drop_capture(NodeContext& node, uint64_t number);

}  // namespace krg
