// SavedPages: what the last capture of a spread process had of its page set: which pages were
// mapped where, and which of them had content. So the next one knows what it need not have again.
// Pure: no system calls.
//
// Threads: the loop's thread. Owned by SpreadProcess.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "krg/shmem/ids.h"
#include "spread/spread_memory.h"

namespace krg {

// Pages of a set; all numbers may be asked for.
class PageMarks {
 public:
  bool has(PageIndex page) const { return page.value < marks_.size() && marks_[page.value]; }
  void add(PageIndex page);
  void add(const std::vector<bool>& pages);
  const std::vector<bool>& all() const { return marks_; }  // perhaps shorter
  // From one node to another: what PageSet::take_written() told. False: it is not known.
  static std::string pack(const std::optional<std::vector<bool>>& written);
  bool add_packed(std::string_view written);

 private:
  std::vector<bool> marks_;
};

class SavedPages {
 public:
  // Whether that is the capture; 0 never is.
  bool is_of(uint64_t capture) const { return capture != 0 && capture == capture_; }
  void forget() { *this = {}; }
  // `ranges`: sorted by address.
  void replace(uint64_t capture, std::vector<SpreadRange> ranges, PageMarks with_content);

  struct Plan {
    std::vector<SpreadRange> same;     // with the content that the capture has at these addresses
    std::vector<SpreadRange> changed;  // with another one, perhaps with none
  };
  // What is there now, of which `written` are the pages that may have been written or discarded
  // since. In neither list: what had no content and has none.
  Plan plan(const std::vector<SpreadRange>& now, const PageMarks& written) const;

 private:
  uint64_t capture_ = 0;  // 0: nothing is known
  std::vector<SpreadRange> ranges_;
  PageMarks content_;
};

}  // namespace krg
