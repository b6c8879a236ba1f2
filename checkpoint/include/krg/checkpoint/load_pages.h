// load_pages(): contents of all pages of a version go to where they belong. Threads: a worker, and
// threads of its own meanwhile. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "krg/checkpoint/part_file.h"
#include "krg/procmgr/page_range.h"

namespace krg {

using PageSink = std::function<Status(uint32_t member, std::span<const PageRange> ranges,
                                      std::span<const std::byte> contents)>;

// `parts`: the version's own first (CheckpointStore::open_parts()). `sink` is called by several
// threads. Errors: a block is damaged; those of `sink`.
Status load_pages(const std::vector<std::unique_ptr<PartReader>>& parts, const PageSink& sink);

}  // namespace krg
