// SpreadImage: what a node needs to make a replica of a spread process: an image of the process
// with one thread and without the memory that is in the page set, where pages of the set are
// mapped, and the contents of pages that differ from their files though nobody may write them
// (relocations). Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "image/process_image.h"
#include "krg/procmgr/page_range.h"
#include "spread/spread_memory.h"

namespace krg {

struct SpreadImage {
  ProcessImage image;
  std::vector<SpreadRange> ranges;
  std::vector<PageRange> pages;
  std::string contents;  // of `pages`, one after the other

  // Error: EBADMSG.
  static Result<SpreadImage> parse(std::string_view bytes);
  std::string serialize() const;
};

// What becomes memory of the page set: private mappings that a thread may write, now or after an
// mprotect(2) (all anonymous ones). Not those that are too large to keep account of page by page:
// they stay at home, and so do the threads that touch them.
bool is_to_be_spread(const ImageMapping& mapping);
// Takes out what the process shares with others that write it, too: memory of this system, files.
// That stays at home, and so do the threads that touch it.
void leave_shared_at_home(ProcessImage& image);
inline constexpr uint64_t kMostSpreadBytes = uint64_t{16} << 30;  // of one mapping

}  // namespace krg
