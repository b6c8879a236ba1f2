// content_ranges(): which pages of a process have content of their own, and so have to go along
// when it moves or is saved: anonymous pages of private mappings that are in memory or in swap. Not
// among them: what was never touched, pages of zeros that were only read, clean pages of private
// file mappings (their file has them; of a deleted one all that there is goes along), guard
// regions, the kernel's own mappings (vdso, vvar), and all of shared mappings, whose contents
// belong to their file or memory object.
//
// Threads: any. Source: proc_pid_maps(5), ioctl_pagemap_scan(2) (Linux 6.7), proc_pid_pagemap(5).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "krg/procmgr/page_range.h"
#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// What tells which pages were written (written_pages.h).
enum class WrittenBy : uint32_t { kNothing, kSoftDirty, kWriteProtection };

// Flags of PAGEMAP_SCAN: PM_SCAN_CHECK_WPASYNC; and PM_SCAN_WP_MATCHING.
inline constexpr uint64_t kScanChecks = 2, kScanProtects = 3;

// A private mapping that may have pages with content: all but the kernel's own.
struct PrivateMapping {
  uint64_t start = 0, end = 0;
  bool has_file = false;
  bool is_deleted = false;  // that file: nobody else has its pages
};
// In the order of their addresses. Errors: ESRCH.
Result<std::vector<PrivateMapping>> private_mappings(pid_t pid);
// /proc/PID/pagemap. Errors: ESRCH, EACCES.
Result<UniqueFd> open_pagemap(pid_t pid);

// Sorted by address; a range never crosses the bounds of a mapping. The answer holds while the
// process does not run. Before Linux 6.7 pages of zeros that were only read are among them.
// Errors: ESRCH, EACCES of /proc/PID/pagemap.
// REQUIRES: a caller that may trace the process.
// `told_by`: is_clean is filled in.
Result<std::vector<PageRange>> content_ranges(pid_t pid, WrittenBy told_by = WrittenBy::kNothing);

// Of the same, by write protection, what lies in [start, end); the process may run: what is clean
// was protected and had not been written when it was looked at.
Result<std::vector<PageRange>> content_ranges_within(pid_t pid, RemoteAddr start, RemoteAddr end);

// Told of each mapping when its pages have been found. `is_watched`: what was written of it is
// protected again; else all of it counts as written.
using MappingScanned =
    std::function<Status(const PrivateMapping& mapping, int pagemap, bool is_watched)>;
// content_ranges() by write protection, which protects what was written in the same pass. Errors:
// as above, and those of `scanned`.
Result<std::vector<PageRange>> protect_content_ranges(pid_t pid, const MappingScanned& scanned);

// Whether that mapping has any. Errors, REQUIRES: as above.
Result<bool> has_content(pid_t pid, const PrivateMapping& mapping);

// The ranges by /proc/PID/pagemap alone, as on a kernel without PAGEMAP_SCAN; is_huge is not told.
Result<std::vector<PageRange>> content_ranges_by_pagemap(pid_t pid);

}  // namespace krg
