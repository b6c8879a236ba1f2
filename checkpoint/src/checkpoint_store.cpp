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

namespace krg {
namespace {

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

// What the first one has in older parts is there.
Status check_older_ranges(const std::vector<std::unique_ptr<PartReader>>& parts) {
  std::map<uint32_t, uint64_t> bytes;
  for (const auto& part : parts) bytes[part->contents().version] = part->contents().page_bytes;
  for (const PartRange& range : parts.front()->contents().ranges) {
    const auto known = bytes.find(range.version);
    if (known == bytes.end() || range.offset > known->second ||
        range.bytes > known->second - range.offset)
      return text_error("its tables and those of older versions contradict each other");
  }
  return {};
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
std::string CheckpointStore::spare_path(uint64_t page_bytes) const {
  const std::string path = spare_name();
  struct stat found {};
  if (stat(path.c_str(), &found) != 0) return {};
  return static_cast<uint64_t>(found.st_size) / kMostTooLong <= page_bytes ? path : std::string();
}
std::string CheckpointStore::spare_name() const {
  return folder_ + "/spare.h5";
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
  for (size_t i = 0; i < info.needs.size(); ++i)
    if (auto added = add(info.needs[i], 0, i < info.needs_ids.size() ? info.needs_ids[i] : 0);
        !added)
      return added.error();
  if (parts.empty()) return text_error(master_path(info.version) + ": it has no parts");
  if (auto checked = check_older_ranges(parts); !checked)
    return Error{checked.error().code, master_path(info.version) + ": " + checked.error().context};
  return parts;
}

Status CheckpointStore::verify(uint32_t version) const {
  auto known = info(version);
  if (!known) return known.error();
  auto parts = open_parts(*known);
  if (!parts) return parts.error();
  std::vector<std::byte> block(kCheckpointBlock);
  for (const auto& part : *parts)
    for (uint64_t i = 0; i < part->block_count(); ++i)
      if (auto read = part->read(i, block); !read) return read.error();
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
  for (const std::string& name : names_in(folder_))
    if (name.ends_with(".tmp")) unlink((folder_ + "/" + name).c_str());
  return remove_unneeded_parts();
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

Status CheckpointStore::put_master(const VersionInfo& info) const {
  const std::string path = master_path(info.version), fresh = path + ".tmp";
  if (auto written = write_master(fresh, info); !written) {
    unlink(fresh.c_str());
    return written;
  }
  if (rename(fresh.c_str(), path.c_str()) != 0) return errno_error(path);
  return sync();
}

Status CheckpointStore::commit(const VersionInfo& info) const {
  if (auto synced = sync(); !synced) return synced;  // the parts' names
  return put_master(info);
}

// A master that still names the older versions is right with either part.
Status CheckpointStore::replace_part(const std::string& path, const VersionInfo& info) const {
  const std::string place = part_path(info.version, 0);
  if (rename(path.c_str(), place.c_str()) != 0) return errno_error(place);
  if (auto synced = sync(); !synced) return synced;
  if (auto put = put_master(info); !put) return put;
  return remove_unneeded_parts();
}

// Those of versions that are not there and that none needs.
Status CheckpointStore::remove_unneeded_parts() const {
  std::set<uint32_t> needed;
  auto all = versions();
  if (!all) return all.error();
  for (uint32_t version : *all) {
    needed.insert(version);
    auto known = info(version);
    // One that cannot be read may need any.
    if (!known) return {};
    needed.insert(known->needs.begin(), known->needs.end());
  }
  for (PartName part; const std::string& name : names_in(folder_)) {
    if (!parse_part(name, part) || needed.contains(part.version)) continue;
    const std::string path = folder_ + "/" + name;
    if (part.node == 0 && is_longer(path, spare_name()))
      rename(path.c_str(), spare_name().c_str());
    else
      unlink(path.c_str());
  }
  return {};
}

Status CheckpointStore::remove(uint32_t version) const {
  if (unlink(master_path(version).c_str()) != 0) return errno_error(master_path(version));
  if (auto synced = sync(); !synced) return synced;
  return remove_unneeded_parts();
}

Status CheckpointStore::prune(unsigned keep) const {
  auto all = versions();
  if (!all) return all.error();
  for (size_t i = 0; i + keep < all->size(); ++i)
    if (auto removed = remove((*all)[i]); !removed) return removed;
  return {};
}

}  // namespace krg
