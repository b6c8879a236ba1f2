// SavedFile: contents of a file that a stopped family's members have open for writing, copied while
// they stand; not those of a file that has not changed since the capture that this one goes on
// from.
//
// Threads: taken in the loop's thread; a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "family/family_memory.h"
#include "krg/procmgr/family_tracking.h"

namespace krg {

// What may tell that a file has not changed: the captures to go on from, and this one.
struct SavedSince {
  FamilyTracking* tracking = nullptr;
  uint64_t base = 0, number = 0;
};

struct SavedFile {
  std::vector<PageRange> pages;  // by offset; holes and pages of zeros are none
  CopiedPages copied;            // those that are not clean

  // `fd`: of the file, open for whatever. `most`: how much may be copied; less by what was.
  // Errors: ENOTSUP: it is too much; of read(2).
  static Result<SavedFile> take(int fd, SavedSince since, uint64_t& most);
};

}  // namespace krg
