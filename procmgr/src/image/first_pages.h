// first_pages(): which pages of a moved process go along with its image, because it would wait for
// them at once: those that must be there before it runs, and those that its registers speak of.
// Pure. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "image/content_ranges.h"
#include "image/process_image.h"

namespace krg {

// Takes them out of `ranges`, which are in order of address and become the rest. Some
// `most_bytes` at the most; what had to come first and found no room stays among the rest.
std::vector<PageRange> take_first_pages(std::vector<PageRange>& ranges, const ProcessImage& image,
                                        uint64_t most_bytes);

// Marks those that must be there before the process runs whatever they hold (`comes_first`), and
// cuts ranges where that is said of a part. `ranges`: in order of address.
std::vector<PageRange> mark_first_pages(const std::vector<PageRange>& ranges,
                                        const ProcessImage& image);

}  // namespace krg
