// keep_huge(): the huge pages of a moved process, which userfaultfd could only bring as small ones,
// become huge again. By a worker, while the process runs. Source: MADV_COLLAPSE (madvise(2),
// Linux 6.1), process_madvise(2) with CAP_SYS_NICE. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/page_range.h"

namespace krg {

// Of the ranges those that were huge at the source. Where the kernel does not do it, or the process
// has ended or changed its mappings, its pages stay what they are.
// Threads: the loop's thread; copies the pidfd.
void keep_huge(NodeContext& node, int pidfd, const std::vector<PageRange>& ranges);

}  // namespace krg
