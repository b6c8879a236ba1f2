// LivePart: a node's part of a version whose first pages are written while the program runs
// (FORMAT.md, Commit): they lie in a file without tables, which becomes the part when what has been
// written since is known (write_part()).
//
// Owned by who writes the part. Threads: a worker, and threads of its own meanwhile.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "krg/checkpoint/part_file.h"
#include "krg/checkpoint/progress.h"
#include "krg/procmgr/live_pages.h"

namespace krg {

struct PartOrder;

// What it is read from: LivePages, or a test's own, with functions as that has.
class LiveSource {
 public:
  virtual ~LiveSource() = default;
  virtual std::vector<pid_t> members() const = 0;
  virtual uint64_t bytes() const = 0;
  virtual std::vector<LivePages::Pages> next(uint64_t wanted) = 0;
  virtual void read(uint32_t member, std::span<const PageRange> ranges,
                    std::span<std::byte> into) = 0;
};

class LivePart {
 public:
  // Nothing is left in the folder when it fails. Errors: of the disk.
  static Result<std::shared_ptr<LivePart>> write(LiveSource& source, const PartOrder& order);
  ~LivePart();

  // Where what a version has by that key (base_key()) is, sorted by address.
  const std::map<std::string, std::vector<PartRange>>& ranges() const { return ranges_; }
  // Of the part's pages; whole blocks.
  uint64_t page_bytes() const { return page_bytes_; }
  // Nothing of it is used: its file is removed.
  void discard();
  // Once; it has `page_bytes()` of its pages. REQUIRES: `contents` begin with these.
  Result<std::unique_ptr<PartWriter>> complete(const PartContents& contents);

 private:
  LivePart() = default;
  Status write_next(LiveSource& source, const PartOrder& order, bool& is_done);

  std::string path_;
  std::unique_ptr<PartWriter> writer_;
  std::map<std::string, std::vector<PartRange>> ranges_;
  uint64_t page_bytes_ = 0, room_ = 0;
};

}  // namespace krg
