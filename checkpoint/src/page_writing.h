// write_pages(): pages of processes become blocks of a part. Threads: any, and threads of its own
// meanwhile; it blocks. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "krg/checkpoint/part_file.h"
#include "krg/checkpoint/progress.h"
#include "krg/checkpoint/write_version.h"

namespace krg {

// Of a part's pages, from the beginning of a block on; to the end of one unless all pages end
// there.
struct PageBounds {
  uint64_t begin = 0, end = 0;
};

// `ranges`: what lies there, sorted by offset, without gaps from bounds.begin on; zeros follow
// them. Errors: those of `contents`, and of the disk.
Status write_pages(const PageContents& contents, const std::vector<PartRange>& ranges,
                   PageBounds bounds, PartWriter& writer, const SharedProgress& progress);

}  // namespace krg
