// load_pages(): contents of all pages of a version go to where they belong. Threads: a worker, and
// threads of its own meanwhile. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "krg/checkpoint/checkpoint_store.h"
#include "krg/checkpoint/progress.h"
#include "krg/procmgr/page_range.h"

namespace krg {

// `member`: its pid.
using PageSink = std::function<Status(pid_t member, std::span<const PageRange> ranges,
                                      std::span<const std::byte> contents)>;

// The same of a saved file, by its number in the family.
using FileSink = std::function<Status(uint32_t file, std::span<const PageRange> ranges,
                                      std::span<const std::byte> contents)>;

// `parts`: of one version (CheckpointStore::open_parts()). `is_wanted`: members whose pages are to
// be loaded. `sink` is called by several threads. Errors: a block is damaged; those of `sink`.
Status load_pages(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
                  const std::function<bool(pid_t member)>& is_wanted, const PageSink& sink,
                  const SharedProgress& progress = {});
// The same of saved files.
Status load_files(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
                  const std::function<bool(uint32_t file)>& is_wanted, const FileSink& sink);
// The same of memory that nodes shared, by its number in the family.
using MemorySink = std::function<Status(uint32_t memory, std::span<const PageRange> ranges,
                                        std::span<const std::byte> contents)>;
Status load_memories(const VersionInfo& info, const std::vector<std::unique_ptr<PartReader>>& parts,
                     const MemorySink& sink);

}  // namespace krg
