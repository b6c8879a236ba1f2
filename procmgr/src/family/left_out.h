// Memory that a program wants to have left out of its checkpoints (cr_exclude_on).
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <span>
#include <vector>

#include "krg/procmgr/page_range.h"

namespace krg {

// Removes from `pages` what lies in `left_out`; of huge pages only those that do so wholly. Order
// is kept.
void leave_out(std::vector<PageRange>& pages, std::span<const PageRange> left_out);

// Whether all of `before` lies in `now`, each in one of its ranges.
bool is_left_out(std::span<const PageRange> before, std::span<const PageRange> now);

}  // namespace krg
