// Kernel interface of userfaultfd and pagemap that the C library's headers (kernel 6.1) do not have
// yet. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>

#include <cstdint>

namespace krg {

// userfaultfd(2): features by the kernel that brought them.
inline constexpr uint64_t kUffdWpUnpopulated = 1 << 13;  // 6.4
inline constexpr uint64_t kUffdPoison = 1 << 14;         // 6.6
inline constexpr uint64_t kUffdWpAsync = 1 << 15;        // 6.7
inline constexpr uint64_t kUffdMove = 1 << 16;           // 6.8

inline constexpr uint64_t kUffdContinueWriteProtected = 1 << 1;  // UFFDIO_CONTINUE_MODE_WP, 6.4
struct UffdPoisonRange {                                         // UFFDIO_POISON, 6.6
  uffdio_range range;
  uint64_t mode;
  int64_t updated;
};
inline constexpr unsigned long kUffdPoisonCall = _IOWR(UFFDIO, 0x08, UffdPoisonRange);

// PAGEMAP_SCAN (ioctl_pagemap_scan(2), kernel 6.7): the pages of a range that match, as regions.
struct PageRegion {
  uint64_t start, end, categories;
};
struct PagemapScan {
  uint64_t size, flags, start, end, walk_end;
  uint64_t regions, region_count, max_pages;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
inline constexpr unsigned long kPagemapScan = _IOWR('f', 16, PagemapScan);
// Categories of pages.
inline constexpr uint64_t kPageIsWriteProtectable = 1 << 0, kPageIsWritten = 1 << 1,
                          kPageIsFile = 1 << 2, kPageIsPresent = 1 << 3, kPageIsSwapped = 1 << 4,
                          kPageIsZero = 1 << 5, kPageIsHuge = 1 << 6,
                          kPageIsGuard = 1 << 8;  // 6.15; refused before

}  // namespace krg
