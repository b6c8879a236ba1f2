// SPDX-License-Identifier: GPL-2.0-or-later
#include "base_ranges.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "krg/checkpoint/sealed_file.h"

namespace krg {
namespace {

constexpr size_t kMostFolders = 8;        // whose last parts are kept
constexpr size_t kMostRanges = 1u << 20;  // of one of them: 40 MiB

Error stale() {
  return errno_error("the version before this one has changed", ESTALE);
}

// A file that nobody has written to nor put into another's place.
struct FileState {
  dev_t device = 0;
  ino_t inode = 0;
  off_t bytes = 0;
  int64_t written_ns = 0, changed_ns = 0;
  bool operator==(const FileState&) const = default;
};

std::optional<FileState> state_of(const std::string& path) {
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return std::nullopt;
  const auto ns = [](const timespec& time) {
    return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
  };
  return FileState{found.st_dev, found.st_ino, found.st_size, ns(found.st_mtim), ns(found.st_ctim)};
}

}  // namespace

std::string base_key(const ProcessFamily& family, uint32_t member) {
  if (member < family.members.size()) return std::to_string(family.members[member].pid);
  if (const uint32_t first = family.owner_of_memory(0); member >= first)
    return fmt::format("memory {}", family.memories.at(member - first).id);
  const FamilyFile& file = family.files.at(member - family.members.size());
  return file.kind == FamilyFile::Kind::kDeleted ? file.memory : file.path;
}

Result<BaseRanges> BaseRanges::read(const CheckpointStore& store, const PartOrder& order) {
  const WriteOptions::Base& wanted = order.base;
  BaseRanges base;
  auto info = store.info(wanted.version);
  if (!info || info->id != wanted.id) return stale();
  auto part = PartReader::open(store.part_path(wanted.version, order.node));
  if (!part || (*part)->contents().id != wanted.id) return stale();
  for (size_t i = 0; i < info->needs.size() && i < info->needs_ids.size(); ++i)
    base.ids_[info->needs[i]] = info->needs_ids[i];
  base.add((*part)->contents());
  return base;
}

BaseRanges::BaseRanges(const PartContents& contents, const BaseRanges& base) {
  uint32_t last = contents.version;
  for (const PartRange& range : contents.ranges)
    if (range.version != contents.version && std::exchange(last, range.version) != range.version)
      ids_[range.version] = base.id_of(range.version);
  add(contents);
}

void BaseRanges::add(const PartContents& contents) {
  ids_[contents.version] = contents.id;
  const auto& ranges = contents.ranges;
  for (auto next = ranges.begin(); next != ranges.end();) {
    const uint32_t member = next->member;
    auto& known = ranges_[base_key(contents.family, member)];
    const auto end = std::find_if(next, ranges.end(),
                                  [member](const PartRange& r) { return r.member != member; });
    known.insert(known.end(), next, end);
    next = end;
  }
  for (auto& [key, known] : ranges_)
    if (!std::ranges::is_sorted(known, {}, &PartRange::address))
      std::ranges::sort(known, {}, &PartRange::address);
}

Status BaseRanges::find(const std::string& key, uint32_t member, const PageRange& range,
                        std::vector<PartRange>& found) const {
  const auto known = ranges_.find(key);
  if (known == ranges_.end()) return stale();
  auto piece =
      std::upper_bound(known->second.begin(), known->second.end(), range.start.value,
                       [](uint64_t at, const PartRange& r) { return at < r.address + r.bytes; });
  for (uint64_t at = range.start.value; at < range.end().value; ++piece) {
    if (piece == known->second.end() || piece->address > at) return stale();
    const uint64_t skip = at - piece->address;
    const uint64_t bytes = std::min(piece->bytes - skip, range.end().value - at);
    found.push_back({.member = member,
                     .version = piece->version,
                     .address = at,
                     .bytes = bytes,
                     .offset = piece->offset + skip});
    at += bytes;
  }
  return {};
}

uint64_t BaseRanges::id_of(uint32_t version) const {
  const auto known = ids_.find(version);
  return known == ids_.end() ? 0 : known->second;
}

size_t BaseRanges::count() const {
  size_t count = 0;
  for (const auto& [key, known] : ranges_) count += known.size();
  return count;
}

struct LastParts::Impl {
  struct Part {
    uint32_t version = 0;
    uint64_t id = 0;
    FileState file;
    std::shared_ptr<const BaseRanges> ranges;
  };
  mutable std::mutex mutex;
  std::map<std::pair<std::string, uint32_t>, Part> parts;  // by folder and node
};

LastParts::LastParts() : impl_(std::make_unique<Impl>()) {}
LastParts::~LastParts() = default;

std::shared_ptr<const BaseRanges> LastParts::find(const CheckpointStore& store,
                                                  const PartOrder& order) const {
  Impl::Part part;
  {
    std::lock_guard lock(impl_->mutex);
    const auto known = impl_->parts.find({order.folder, order.node});
    if (known == impl_->parts.end()) return nullptr;
    part = known->second;
  }
  if (part.version != order.base.version || part.id != order.base.id ||
      state_of(store.part_path(part.version, order.node)) != part.file)
    return nullptr;
  auto master = check_seal(store.master_path(part.version));
  return master && master->id == part.id ? part.ranges : nullptr;
}

void LastParts::keep(const CheckpointStore& store, const PartOrder& order, BaseRanges ranges) {
  const auto file = state_of(store.part_path(order.version, order.node));
  const std::pair key(order.folder, order.node);
  std::lock_guard lock(impl_->mutex);
  impl_->parts.erase(key);
  if (!file || ranges.count() > kMostRanges) return;
  if (impl_->parts.size() >= kMostFolders) impl_->parts.clear();
  impl_->parts[key] = {order.version, order.id, *file,
                       std::make_shared<const BaseRanges>(std::move(ranges))};
}

}  // namespace krg
