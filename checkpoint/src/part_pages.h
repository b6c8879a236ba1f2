// PartPages: what of one part's pages is wanted, and how a block of it is had.
//
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/load_pages.h"

namespace krg {

struct PartPages {
  const PartReader* part = nullptr;
  std::vector<PartRange> ranges;  // by offset
};

// Of all parts that have any. `is_wanted`: members and, behind them, files.
std::vector<PartPages> wanted_pages(const VersionInfo& info,
                                    const std::vector<std::unique_ptr<PartReader>>& parts,
                                    const std::function<bool(uint32_t member)>& is_wanted);

// Whether anything of block `index` is wanted.
bool has_block(const PartPages& pages, uint64_t index);

// Gives `sink` what is wanted of block `index`. Errors: the tables are wrong; those of `sink`.
Status place_block(const PartPages& pages, uint64_t index, std::span<const std::byte> contents,
                   const FileSink& sink);

// The same of one that is read into `block` first. Errors: it is damaged, too. REQUIRES: `block`
// has kCheckpointBlock bytes.
Status load_block(const PartPages& pages, uint64_t index, std::span<std::byte> block,
                  const FileSink& sink);

}  // namespace krg
