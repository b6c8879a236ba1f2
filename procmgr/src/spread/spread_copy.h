// SpreadCopy: a stopped task without the pages of a page set that its original has mapped gets
// private memory in their place, with what the pages hold, wherever they are.
//
// Threads: the loop's thread, the tracer. Shared by what is under way.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "image/frozen_thread.h"
#include "image/task_memory.h"
#include "krg/shmem/page_set.h"
#include "spread/spread_memory.h"

namespace krg {

class SpreadCopy : public std::enable_shared_from_this<SpreadCopy> {
 public:
  // `ranges`: what the original has mapped of the set.
  SpreadCopy(std::shared_ptr<PageSet> pages, std::vector<SpreadRange> ranges)
      : pages_(std::move(pages)), ranges_(std::move(ranges)) {}

  // Maps it, by calls at `instruction`. Errors: of mmap(2).
  Status map(FrozenThread& task, RemoteAddr instruction) const;
  // Once mapped: `done` runs when all is there, unless it was cancelled. Errors: of the page set's,
  // ESRCH.
  void fill(pid_t task, std::function<void(Status)> done);
  void cancel() { done_ = nullptr; }

 private:
  void copy_next();
  void copy(const SpreadRange& range, PageIndex page, std::span<const std::byte> bytes);
  void end(const Status& how);

  const std::shared_ptr<PageSet> pages_;
  const std::vector<SpreadRange> ranges_;
  std::optional<TaskMemory> memory_;
  std::function<void(Status)> done_;
  size_t next_range_ = 0;
};

}  // namespace krg
