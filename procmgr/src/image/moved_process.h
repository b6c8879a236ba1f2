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
  // Pages that have content of their own. Those of `pages` are in `contents`, one after the other;
  // the others come through PageMoves, from the sender, who knows them by the number `move`.
  std::vector<PageRange> pages, late_pages;
  std::string contents;
  uint64_t move = 0;
  // Not null: pages come by PageMoves::receive() with a supply, which somebody on its node calls.
  uint8_t is_supplied = 0;

  // Error: EBADMSG.
  static Result<MovedProcess> parse(std::string_view bytes);
  std::string serialize() const;
};

// Bytes of all ranges together.
uint64_t total_bytes(const std::vector<PageRange>& pages);

}  // namespace krg
