// WrittenPages: which pages of a process were written since the last reset(), as the kernel notes
// it while the program runs: by a userfaultfd of the process that write-protects and lets every
// write through (WP_ASYNC, Linux 6.7), which krgd alone has; or by soft-dirty bits.
//
// Not seen: what hardware writes into pages pinned before (RDMA).
//
// Owned by FamilyTracking. Threads: the loop's thread. When this goes nothing is noted any more.
// Source: Linux Documentation, userfaultfd.rst, soft-dirty.rst; ioctl_pagemap_scan(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "image/content_ranges.h"
#include "image/frozen_process.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class WrittenPages {
 public:
  // The best that this kernel has.
  static WrittenBy best_way();
  static bool has_write_protection();
  static bool has_soft_dirty();

  // `told_by`: one that the kernel has. Errors: of userfaultfd(2), ESRCH.
  static Result<std::unique_ptr<WrittenPages>> begin(FrozenProcess& process, WrittenBy told_by);

  // From now on only what is written after this counts; memory that is not to be watched (another
  // userfaultfd has it), and what is mapped later, counts as written. Nothing is left to do right
  // after take(). Errors: ESRCH, EACCES.
  Status reset();
  // All pages with content, is_clean filled in; does what reset() does, in the same pass. REQUIRES:
  // the process does not run. Errors: as content_ranges(), reset().
  Result<std::vector<PageRange>> take();

 private:
  WrittenPages(pid_t pid, WrittenBy told_by, UniqueFd userfaultfd)
      : pid_(pid), told_by_(told_by), userfaultfd_(std::move(userfaultfd)) {}
  Status protect();
  static Status protect_one(const PrivateMapping& mapping, int pagemap);
  bool watch(const PrivateMapping& mapping, int pagemap) const;

  pid_t pid_;
  WrittenBy told_by_;
  UniqueFd userfaultfd_;
  bool was_reset_ = false;
  bool is_taken_ = false;  // by take(): reset() has nothing to do
};

}  // namespace krg
