// is_served(): whether a userfaultfd serves memory of a process: its own, or krgd's, by which pages
// come after a move; that goes when all are there, and the flags that tell of it.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>

#include "image/known_mappings.h"

namespace krg {

// "uw" alone is krgd's own (written_pages.h).
inline bool is_served(const MappingText& m) {
  return m.has("um") || m.has("ui");
}
inline bool is_served(const MappingTexts& texts) {
  return std::any_of(texts.all().begin(), texts.all().end(),
                     [](const MappingText& m) { return is_served(m); });
}

}  // namespace krg
