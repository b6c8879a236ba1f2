// SpreadCopy: a stopped task without the pages of a page set that its original has mapped gets
// private memory in their place, with what the pages hold, wherever they are. SpreadReader: goes
// through those pages.
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

class SpreadReader : public std::enable_shared_from_this<SpreadReader> {
 public:
  // Gets each page that exists and is not all zeros; an error of it ends the reading.
  using Use = std::function<Status(RemoteAddr, PageIndex, std::span<const std::byte>)>;
  SpreadReader(std::shared_ptr<PageSet> pages, std::vector<SpreadRange> ranges)
      : pages_(std::move(pages)), ranges_(std::move(ranges)) {}

  // `done` runs when all have been had, in any order, unless it was cancelled.
  // Errors: of the page set's, `use`'s.
  void read(Use use, std::function<void(Status)> done);
  void cancel() { done_ = nullptr; }

 private:
  void read_next();
  void end(const Status& how);

  const std::shared_ptr<PageSet> pages_;
  const std::vector<SpreadRange> ranges_;
  Use use_;
  std::function<void(Status)> done_;
  size_t next_range_ = 0;
  uint64_t next_ = 0;  // in that one
};

class SpreadCopy {
 public:
  // `ranges`: what the original has mapped of the set.
  SpreadCopy(std::shared_ptr<PageSet> pages, std::vector<SpreadRange> ranges)
      : ranges_(ranges),
        reader_(std::make_shared<SpreadReader>(std::move(pages), std::move(ranges))) {}

  // Maps it, by calls at `instruction`. Errors: of mmap(2).
  Status map(FrozenThread& task, RemoteAddr instruction) const;
  // Once mapped: `done` runs when all is there, unless it was cancelled; `copied`, if given, for
  // each page that has got content. Errors: of the page set's, ESRCH.
  void fill(pid_t task, std::function<void(Status)> done,
            std::function<void(PageIndex)> copied = {});
  void cancel() { reader_->cancel(); }

 private:
  const std::vector<SpreadRange> ranges_;
  const std::shared_ptr<SpreadReader> reader_;
};

}  // namespace krg
