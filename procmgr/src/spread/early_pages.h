// EarlyPages: the pages of a spread process's set, read while its threads run, before it is saved.
// What is written is told from before the first is read (TellWritten), so that those written since
// are read again while all stand, and no others.
//
// Threads: the loop's thread. Shared by the process and who has them read.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "spread/saved_pages.h"
#include "spread/set_pages.h"
#include "spread/spread_copy.h"

namespace krg {

class EarlyPages : public std::enable_shared_from_this<EarlyPages> {
 public:
  // `ranges`: what is mapped, sorted by address.
  EarlyPages(std::shared_ptr<PageSet> pages, std::vector<SpreadRange> ranges)
      : pages_(std::move(pages)), ranges_(std::move(ranges)) {}

  // `done` runs when all have been read, or cannot be: is_whole() tells which.
  void read(std::function<void()> done);
  bool is_whole() const { return is_whole_; }
  // What is mapped now, of which `written` may have been written since before read().
  SavedPages::Plan plan(const std::vector<SpreadRange>& now, const PageMarks& written) const {
    return known_.plan(now, written);
  }
  // Those in `same`, and room for as many as are mapped. REQUIRES: is_whole(); once.
  SetPages take(const std::vector<SpreadRange>& same);

 private:
  const std::shared_ptr<PageSet> pages_;
  const std::vector<SpreadRange> ranges_;
  std::optional<SetPages> copies_;
  SavedPages known_;
  bool is_whole_ = false;
};

}  // namespace krg
