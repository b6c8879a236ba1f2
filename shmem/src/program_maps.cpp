// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_maps.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

namespace {

// linux/fs.h's procmap_query, since Linux 6.11.
struct MapQuery {
  uint64_t size, flags, address;
  uint64_t start, end, map_flags, page_size, offset, inode;
  uint32_t device_major, device_minor;
  uint32_t name_size, build_id_size;
  uint64_t name, build_id;
};
static_assert(sizeof(MapQuery) == 104);
constexpr unsigned long kQueryMap = _IOWR('f', 17, MapQuery);

struct MappedFile {
  uint64_t offset, inode;
  dev_t device;
};

// One mapping asked for costs a few microseconds, the text of all of them ten times as much. Errors
// are ENOENT: nothing is mapped there, and ENOTTY of older kernels.
Result<MappedFile> query_map(pid_t pid, RemoteAddr address) {
  const UniqueFd maps(open(fmt::format("/proc/{}/maps", pid).c_str(), O_RDONLY | O_CLOEXEC));
  MapQuery query{};
  query.size = sizeof query;
  query.address = address.value;
  if (!maps || ioctl(maps.get(), kQueryMap, &query) != 0) return errno_error("/proc/PID/maps");
  return MappedFile{query.offset + (address.value - query.start), query.inode,
                    makedev(query.device_major, query.device_minor)};
}

// A line of /proc/PID/maps.
struct TextMap {
  uint64_t start = 0, end = 0;
  MappedFile file{};
};

// Calls `use` for one mapping after the other, until it returns true.
template <class Use>
void for_each_map(const std::filesystem::path& process, const Use& use) {
  std::ifstream maps(process / "maps");
  for (std::string line; std::getline(maps, line);) {
    TextMap map;
    unsigned major_number, minor_number;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64,
                    &map.start, &map.end, &map.file.offset, &major_number, &minor_number,
                    &map.file.inode) != 6)
      continue;
    map.file.device = makedev(major_number, minor_number);
    if (use(map)) return;
  }
}

bool is_of(const MappedFile& mapped, const struct stat& file) {
  return mapped.inode == file.st_ino && mapped.device == file.st_dev;
}

}  // namespace

std::optional<uint64_t> offset_in_mapped_file(pid_t pid, RemoteAddr address, int fd) {
  struct stat file {};
  if (fstat(fd, &file) != 0) return std::nullopt;
  const auto mapped = query_map(pid, address);
  if (mapped) return is_of(*mapped, file) ? std::optional(mapped->offset) : std::nullopt;
  if (mapped.error().errno_or(0) != ENOTTY) return std::nullopt;
  std::optional<uint64_t> offset;
  for_each_map(fmt::format("/proc/{}", pid), [&](const TextMap& map) {
    if (address.value < map.start || address.value >= map.end) return false;
    if (is_of(map.file, file)) offset = map.file.offset + (address.value - map.start);
    return true;
  });
  return offset;
}

std::vector<pid_t> processes_mapping(int fd) {
  std::vector<pid_t> found;
  struct stat file {};
  if (fstat(fd, &file) != 0) return found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const pid_t pid = static_cast<pid_t>(std::atoi(entry.path().filename().c_str()));
    if (pid <= 0) continue;
    for_each_map(entry.path(), [&](const TextMap& map) {
      if (is_of(map.file, file)) found.push_back(pid);
      return is_of(map.file, file);
    });
  }
  return found;
}

bool accepts_signal(pid_t pid, int number) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    uint64_t mask;
    if (std::sscanf(line.c_str(), "SigBlk: %" SCNx64, &mask) != 1 &&
        std::sscanf(line.c_str(), "SigIgn: %" SCNx64, &mask) != 1)
      continue;
    if (mask >> (number - 1) & 1) return false;
  }
  return true;
}

}  // namespace krg
