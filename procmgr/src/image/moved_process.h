// MovedProcess: what travels of a process that moves, besides its descriptors: its image and the
// contents of its pages. Threads: a value. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "image/content_ranges.h"
#include "image/process_image.h"

namespace krg {

struct MovedProcess {
  ProcessImage image;
  std::vector<PageRange> pages;  // that have content of their own
  // The contents of all of them, one after the other; empty: they are fetched from the source, who
  // knows them by `source`.
  std::string contents;
  uint64_t source = 0;

  // Error: EBADMSG.
  static Result<MovedProcess> parse(std::string_view bytes);
  std::string serialize() const;
};

// Bytes of all ranges together.
uint64_t total_bytes(const std::vector<PageRange>& pages);

}  // namespace krg
