// SPDX-License-Identifier: GPL-2.0-or-later
#include "program_maps.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace krg {

std::optional<uint64_t> offset_in_mapped_file(pid_t pid, RemoteAddr address, int fd) {
  struct stat file {};
  if (fstat(fd, &file) != 0) return std::nullopt;
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  for (std::string line; std::getline(maps, line);) {
    uint64_t start, end, offset, inode;
    unsigned major_number, minor_number;
    if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64, &start,
                    &end, &offset, &major_number, &minor_number, &inode) != 6)
      continue;
    if (address.value < start || address.value >= end) continue;
    if (inode != file.st_ino || makedev(major_number, minor_number) != file.st_dev)
      return std::nullopt;
    return offset + (address.value - start);
  }
  return std::nullopt;
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
