// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/checkpoint/checkpoint_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <thread>

#include "read_blocks.h"

namespace krg {
namespace {

// At the end of names: of what is being written, and of what is to be unlinked at leisure.
constexpr const char *kUnfinished = ".tmp", *kGone = ".gone";
constexpr uint64_t kMostTooLong = 2;  // times as long as what is written over it
constexpr std::chrono::milliseconds kLookAgain{5};

struct PartName {
  uint32_t version = 0, node = 0;
};

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(folder.c_str()), closedir);
  if (!directory) return names;
  while (const dirent* entry = readdir(directory.get())) names.emplace_back(entry->d_name);
  return names;
}

bool parse_master(const std::string& name, uint32_t& version) {
  return std::sscanf(name.c_str(), "v%u.h5", &version) == 1 &&
         name == fmt::format("v{}.h5", version);
}
bool parse_part(const std::string& name, PartName& part) {
  return std::sscanf(name.c_str(), "v%u.n%u.h5", &part.version, &part.node) == 2 &&
         name == fmt::format("v{}.n{}.h5", part.version, part.node);
}

using Parts = std::vector<std::unique_ptr<PartReader>>;

// What the first `own` ones have in older parts of their nodes is there.
Status check_older_ranges(const Parts& parts, size_t own) {
  std::map<std::pair<uint32_t, uint32_t>, uint64_t> bytes;  // by node and version
  for (const auto& part : parts)
    bytes[{part->contents().node, part->contents().version}] = part->contents().page_bytes;
  for (size_t i = 0; i < own; ++i)
    for (const PartRange& range : parts[i]->contents().ranges) {
      const auto known = bytes.find({parts[i]->contents().node, range.version});
      if (known == bytes.end() || range.offset > known->second ||
          range.bytes > known->second - range.offset)
        return text_error("its tables and those of older versions contradict each other");
    }
  return {};
}

std::set<uint32_t> older_versions(const PartContents& contents) {
  std::set<uint32_t> versions;
  for (const PartRange& range : contents.ranges)
    if (range.version != contents.version) versions.insert(range.version);
  return versions;
}

// Also where there is no other one.
bool is_longer(const std::string& path, const std::string& than) {
  struct stat found {
  }, other{};
  if (stat(path.c_str(), &found) != 0) return false;
  return stat(than.c_str(), &other) != 0 || found.st_size > other.st_size;
}

}  // namespace

Result<CheckpointStore> CheckpointStore::open(const std::string& folder, bool make) {
  if (make && mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) return errno_error(folder);
  UniqueFd directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory) return errno_error(folder);
  return CheckpointStore(folder, std::move(directory));
}

std::string CheckpointStore::master_path(uint32_t version) const {
  return fmt::format("{}/v{}.h5", folder_, version);
}
std::string CheckpointStore::part_path(uint32_t version, uint32_t node) const {
  return fmt::format("{}/v{}.n{}.h5", folder_, version, node);
}
// One that is much longer would be cut, which takes as long as it saves.
std::string CheckpointStore::spare_path(uint32_t node, uint64_t page_bytes) const {
  const std::string path = spare_name(node);
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return {};
  return static_cast<uint64_t>(found.st_size) / kMostTooLong <= page_bytes ? path : std::string();
}
std::string CheckpointStore::spare_name(uint32_t node) const {
  return fmt::format("{}/spare.n{}.h5", folder_, node);
}

void CheckpointStore::remove_parts_of(uint32_t version) const {
  unlink(master_path(version).c_str());
  for (PartName part; const std::string& name : names_in(folder_))
    if (parse_part(name, part) && part.version == version) unlink((folder_ + "/" + name).c_str());
  remove_all(kUnfinished);
  remove_all(kGone);  // the disk may be full
}

Result<std::vector<uint32_t>> CheckpointStore::versions() const {
  std::vector<uint32_t> versions;
  uint32_t version;
  for (const std::string& name : names_in(folder_))
    if (parse_master(name, version)) versions.push_back(version);
  std::sort(versions.begin(), versions.end());
  return versions;
}

Result<VersionInfo> CheckpointStore::info(uint32_t version) const {
  if (version == 0) {
    auto all = versions();
    if (!all) return all.error();
    if (all->empty()) return errno_error(folder_ + ": no checkpoint is there", ENOENT);
    version = all->back();
  }
  if (access(master_path(version).c_str(), F_OK) != 0)
    return errno_error(fmt::format("{}: there is no version {}", folder_, version), ENOENT);
  auto info = read_master(master_path(version));
  if (info && info->version != version)
    return text_error(fmt::format("{}: it is version {}", master_path(version), info->version));
  return info;
}

Result<std::vector<std::unique_ptr<PartReader>>> CheckpointStore::open_parts(
    const VersionInfo& info) const {
  std::vector<std::unique_ptr<PartReader>> parts;
  const auto add = [&](uint32_t version, uint32_t node, uint64_t id) -> Status {
    auto part = PartReader::open(part_path(version, node));
    if (!part) return part.error();
    if ((*part)->contents().version != version || (*part)->contents().node != node ||
        (id != 0 && (*part)->contents().id != id))
      return text_error(part_path(version, node) + ": it is a part of another checkpoint");
    parts.push_back(std::move(*part));
    return {};
  };
  for (uint32_t node : info.nodes)
    if (auto added = add(info.version, node, info.id); !added) return added.error();
  if (parts.empty()) return text_error(master_path(info.version) + ": it has no parts");
  const auto refuse = [&](const Error& why) {
    return Error{why.code, master_path(info.version) + ": " + why.context};
  };
  for (size_t i = 0; i < info.nodes.size(); ++i)
    for (uint32_t version : older_versions(parts[i]->contents())) {
      const auto known = std::find(info.needs.begin(), info.needs.end(), version);
      if (known == info.needs.end())
        return refuse(text_error("its tables and those of its parts contradict each other"));
      const auto index = static_cast<size_t>(known - info.needs.begin());
      const uint64_t id = index < info.needs_ids.size() ? info.needs_ids[index] : 0;
      if (auto added = add(version, info.nodes[i], id); !added) return added.error();
    }
  if (auto checked = check_older_ranges(parts, info.nodes.size()); !checked)
    return refuse(checked.error());
  return parts;
}

Result<ProcessFamily> merged_family(const VersionInfo& info, const Parts& parts) {
  ProcessFamily family = parts.front()->contents().family;
  for (size_t i = 1; i < info.nodes.size(); ++i)
    if (auto merged = family.merge(parts.at(i)->contents().family); !merged) return merged.error();
  for (const FamilyMember& member : family.members)
    if (!member.has_ended() && member.image.empty())
      return text_error(fmt::format("process {} is in none of the parts", member.pid));
  return family;
}

Status CheckpointStore::verify(uint32_t version) const {
  auto known = info(version);
  if (!known) return known.error();
  auto parts = open_parts(*known);
  if (!parts) return parts.error();
  for (const auto& part : *parts) {
    auto read = read_blocks(
        *part, [](auto) { return true; }, [](auto, auto) -> Status { return {}; });
    if (!read) return read;
  }
  return {};
}

Status CheckpointStore::lock(std::chrono::milliseconds patience) {
  const auto until = std::chrono::steady_clock::now() + patience;
  while (flock(directory_.get(), LOCK_EX | LOCK_NB) != 0) {
    if (std::chrono::steady_clock::now() < until) {
      std::this_thread::sleep_for(kLookAgain);
      continue;
    }
    return errno_error(folder_ + ": a checkpoint is being written there", EBUSY);
  }
  remove_all(kUnfinished);
  // No spares: a node may still be writing one of them for somebody who has died.
  return remove_unneeded_parts(Removal::kNow);
}

void CheckpointStore::remove_all(const std::string& ending) const {
  for (const std::string& name : names_in(folder_))
    if (name.ends_with(ending)) unlink((folder_ + "/" + name).c_str());
}

void CheckpointStore::learn_masters() {
  const auto all = versions();
  if (!all) return;
  for (uint32_t version : *all)
    if (auto known = info(version)) learned_[version] = std::move(known->needs);
}

Result<std::vector<uint32_t>> CheckpointStore::needs_of(uint32_t version) const {
  if (const auto known = learned_.find(version); known != learned_.end()) return known->second;
  auto known = info(version);
  if (!known) return known.error();
  return std::move(known->needs);
}

Result<uint32_t> CheckpointStore::next_version() const {
  auto all = versions();
  if (!all) return all.error();
  uint32_t last = all->empty() ? 0 : all->back();
  for (PartName part; const std::string& name : names_in(folder_))
    if (parse_part(name, part)) last = std::max(last, part.version);
  return last + 1;
}

Status CheckpointStore::sync() const {
  if (fsync(directory_.get()) != 0) return errno_error(folder_);
  return {};
}

Status CheckpointStore::commit(const VersionInfo& info) {
  const std::string path = master_path(info.version), fresh = path + kUnfinished;
  if (auto written = write_master(fresh, info); !written) {
    unlink(fresh.c_str());
    return written;
  }
  if (auto synced = sync(); !synced) return synced;  // the parts' names
  if (rename(fresh.c_str(), path.c_str()) != 0) return errno_error(path);
  learned_[info.version] = info.needs;
  return sync();
}

// A master that still names the older versions is right with either parts.
Status CheckpointStore::replace_parts(const std::vector<std::string>& paths,
                                      const VersionInfo& info) {
  for (size_t i = 0; i < paths.size(); ++i) {
    const std::string place = part_path(info.version, info.nodes.at(i));
    if (rename(paths[i].c_str(), place.c_str()) != 0) return errno_error(place);
  }
  auto put = commit(info);
  return put ? tidy() : put;
}

// Those of versions that are not there and that none needs. That these are not there is on the disk
// before. One of each node becomes a spare when they are to be removed later.
Status CheckpointStore::remove_unneeded_parts(Removal how) const {
  auto all = versions();
  if (!all) return all.error();
  std::set<uint32_t> needed(all->begin(), all->end());
  std::vector<std::pair<std::string, PartName>> unneeded;
  const auto add_unneeded = [&](const std::vector<std::string>& names) {
    unneeded.clear();
    for (PartName part; const std::string& name : names)
      if (parse_part(name, part) && !needed.contains(part.version))
        unneeded.emplace_back(folder_ + "/" + name, part);
  };
  const auto names = names_in(folder_);
  add_unneeded(names);
  if (unneeded.empty()) return {};
  for (uint32_t version : *all) {
    auto needs = needs_of(version);
    // One that cannot be read may need any.
    if (!needs) return {};
    needed.insert(needs->begin(), needs->end());
  }
  add_unneeded(names);
  if (unneeded.empty()) return {};
  if (auto synced = sync(); !synced) return synced;
  const auto set_aside = [](const std::string& path) {
    rename(path.c_str(), (path + kGone).c_str());
  };
  for (const auto& [path, part] : unneeded) {
    const std::string spare = spare_name(part.node);
    if (how == Removal::kNow) {
      unlink(path.c_str());
    } else if (is_longer(path, spare)) {
      set_aside(spare);
      rename(path.c_str(), spare.c_str());
    } else {
      set_aside(path);
    }
  }
  return {};
}

Status CheckpointStore::hide_older(unsigned keep) const {
  auto all = versions();
  if (!all) return all.error();
  for (size_t i = 0; i + keep < all->size(); ++i)
    if (const std::string path = master_path((*all)[i]);
        rename(path.c_str(), (path + kGone).c_str()) != 0)
      return errno_error(path);
  return {};
}

Status CheckpointStore::tidy() const {
  const Status set_aside = remove_unneeded_parts(Removal::kLater);
  flock(directory_.get(), LOCK_UN);
  remove_all(kGone);
  return set_aside;
}

Status CheckpointStore::prune(unsigned keep) const {
  auto hidden = hide_older(keep);
  return hidden ? tidy() : hidden;
}

}  // namespace krg
