// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/write_version.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <map>
#include <set>
#include <utility>

#include "base_ranges.h"
#include "krg/checkpoint/live_part.h"
#include "page_writing.h"

namespace krg {
namespace {

uint64_t random_id() {
  uint64_t id = 0;
  while (id == 0)
    if (getrandom(&id, sizeof id, 0) != sizeof id) id = static_cast<uint64_t>(time(nullptr));
  return id;
}

std::string now_in_words() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(time(nullptr)));
}

constexpr uint32_t kNone = UINT32_MAX;

bool is_clean(const FamilySnapshot::Pages& piece) {
  return piece.range.is_clean;
}

// `before`: bytes of the part's pages that are there already.
Result<PartContents> contents_of(const PageSnapshot& snapshot,
                                 const std::vector<FamilySnapshot::Pages>& pages,
                                 const BaseRanges& base, const PartOrder& order, uint64_t before) {
  PartContents contents;
  contents.version = order.version;
  contents.node = order.node;
  contents.id = order.id;
  contents.family = snapshot.family();
  contents.page_bytes = before;
  contents.ranges.reserve(pages.size());
  std::string key;
  uint32_t member = kNone;  // whose that is
  for (const FamilySnapshot::Pages& piece : pages) {
    if (is_clean(piece)) {
      if (std::exchange(member, piece.member) != piece.member)
        key = base_key(contents.family, piece.member);
      if (auto found = base.find(key, piece.member, piece.range, contents.ranges); !found)
        return found.error();
      continue;
    }
    contents.ranges.push_back({.member = piece.member,
                               .version = order.version,
                               .address = piece.range.start.value,
                               .bytes = piece.range.bytes,
                               .offset = contents.page_bytes});
    contents.page_bytes += piece.range.bytes;
  }
  return contents;
}

Result<std::shared_ptr<const BaseRanges>> find_base(const CheckpointStore& store,
                                                    const PartOrder& order, const LivePart* live) {
  if (live) return std::make_shared<const BaseRanges>(live->ranges());
  if (auto known = order.last ? order.last->find(store, order) : nullptr) return known;
  auto read = BaseRanges::read(store, order);
  if (!read) return read.error();
  return std::make_shared<const BaseRanges>(std::move(*read));
}

WrittenPart describe(const PartContents& contents, const BaseRanges& base, uint64_t stored_bytes) {
  WrittenPart part{contents.node, contents.page_bytes, 0, stored_bytes, {}};
  std::set<uint32_t> needs;
  uint32_t last = contents.version;
  for (const PartRange& range : contents.ranges) {
    part.memory_bytes += range.bytes;
    if (range.version != contents.version && std::exchange(last, range.version) != range.version)
      needs.insert(range.version);
  }
  for (uint32_t version : needs) part.needs.emplace_back(version, base.id_of(version));
  return part;
}

Result<std::unique_ptr<PartWriter>> begin_part(const std::string& path,
                                               const PartContents& contents,
                                               const CheckpointStore& store, const PartOrder& order,
                                               LivePart* live) {
  if (live) return live->complete(contents);
  return PartWriter::create(
      path, contents,
      {.compress = order.compress, .spare = store.spare_path(order.node, contents.page_bytes)});
}

// The version's own, from `before` on, which have no gaps between them.
std::vector<PartRange> own_ranges(const PartContents& contents, uint64_t before) {
  std::vector<PartRange> own;
  for (const PartRange& range : contents.ranges)
    if (range.version == contents.version && range.offset >= before) own.push_back(range);
  return own;
}

}  // namespace

Result<WrittenPart> write_part(const PageSnapshot& snapshot, const PartOrder& order) {
  auto store = CheckpointStore::open(order.folder, true);
  if (!store) return store.error();
  order.on_step("tables");
  auto pages = snapshot.pages();
  if (!pages) return pages.error();
  auto base = std::make_shared<const BaseRanges>();
  const bool has_clean = std::any_of(pages->begin(), pages->end(), is_clean);
  LivePart* const live = has_clean ? order.live.get() : nullptr;
  if (order.live && !live) order.live->discard();
  if (has_clean) {
    auto found = find_base(*store, order, live);
    if (!found) return found.error();
    base = std::move(*found);
  }
  const uint64_t before = live ? live->page_bytes() : 0;
  auto contents = contents_of(snapshot, *pages, *base, order, before);
  if (!contents) return contents.error();
  const std::string path = store->part_path(order.version, order.node);
  const auto give_up = [&](const Error& why) {
    unlink(path.c_str());
    return why;
  };
  auto writer = begin_part(path, *contents, *store, order, live);
  if (!writer) return give_up(writer.error());
  order.on_step("pages");
  if (order.progress) order.progress->total = contents->page_bytes;
  const auto own = own_ranges(*contents, before);
  if (auto copied =
          write_pages(snapshot, own, {before, contents->page_bytes}, **writer, order.progress);
      !copied)
    return give_up(copied.error());
  order.on_step("seal");
  if (auto finished = (*writer)->finish(); !finished) return give_up(finished.error());
  if (order.last) order.last->keep(*store, order, BaseRanges(*contents, *base));
  return describe(*contents, *base, (*writer)->stored_bytes());
}

Result<std::unique_ptr<NewVersion>> NewVersion::open(const WriteOptions& options) {
  auto store = CheckpointStore::open(options.folder, true);
  if (!store) return store.error();
  if (auto locked = store->lock(options.patience); !locked) return locked.error();
  if (options.keep > 0) store->learn_masters();
  auto version = store->next_version();
  if (!version) return version.error();
  std::unique_ptr<NewVersion> made(new NewVersion(std::move(*store), options));
  made->version_ = *version;
  made->id_ = random_id();
  return made;
}

NewVersion::~NewVersion() {
  if (!is_committed_) store_.remove_parts_of(version_);
}

PartOrder NewVersion::order_for(uint32_t node) const {
  return {.folder = options_.folder,
          .version = version_,
          .node = node,
          .id = id_,
          .base = options_.base,
          .compress = options_.compress,
          .on_step = options_.on_step};
}

Result<WrittenVersion> NewVersion::commit(const ProcessFamily& family,
                                          const std::vector<WrittenPart>& parts) {
  WrittenVersion written;
  VersionInfo& info = written.info;
  info.version = version_;
  info.id = id_;
  info.created = now_in_words();
  info.command = family.command;
  info.description = options_.description;
  info.user_data = options_.user_data;
  info.root_pid = static_cast<uint64_t>(family.members.front().pid);
  info.processes = family.members.size();
  std::map<uint32_t, uint64_t> needs;
  for (const WrittenPart& part : parts) {
    info.nodes.push_back(part.node);
    info.page_bytes += part.page_bytes;
    info.memory_bytes += part.memory_bytes;
    written.stored_bytes += part.stored_bytes;
    needs.insert(part.needs.begin(), part.needs.end());
  }
  for (const auto& [version, id] : needs) {
    info.needs.push_back(version);
    info.needs_ids.push_back(id);
  }
  options_.on_step("commit");
  if (auto committed = store_.commit(info); !committed) return committed.error();
  is_committed_ = true;
  options_.on_step("prune");
  if (options_.keep > 0)
    if (auto hidden = store_.hide_older(options_.keep); !hidden) return hidden.error();
  return written;
}

Status NewVersion::tidy() {
  options_.on_step("tidy");
  if (options_.keep > 0)
    if (auto tidied = store_.tidy(); !tidied) return tidied;
  options_.on_step("end");
  return {};
}

Result<WrittenVersion> write_version(const PageSnapshot& snapshot, const WriteOptions& options) {
  auto version = NewVersion::open(options);
  if (!version) return version.error();
  auto part = write_part(snapshot, (*version)->order_for(0));
  if (!part) return part.error();
  auto written = (*version)->commit(snapshot.family(), {*part});
  if (!written) return written;
  if (auto tidied = (*version)->tidy(); !tidied) return tidied.error();
  return written;
}

}  // namespace krg
