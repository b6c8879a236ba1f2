// Copies of a stopped process's pages. Where a processor is idle a second thread helps, from their
// end on, as far as it gets: nobody waits for it, whose processor others may have by then.
//
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <vector>

#include "family/family_memory.h"

namespace krg {

enum class Help { kWhereIdle, kAlways };

// REQUIRES: `ranges` are sorted. Errors: ESRCH; EFAULT: something is not mapped; ENOMEM.
Result<CopiedPages> copy_pages(pid_t task, std::vector<PageRange> ranges,
                               Help help = Help::kWhereIdle);

}  // namespace krg
