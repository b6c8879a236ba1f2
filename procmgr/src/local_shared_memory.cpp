// SPDX-License-Identifier: GPL-2.0-or-later
#include "local_shared_memory.h"

#include <fmt/core.h>
#include <sys/shm.h>
#include <sys/statfs.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

namespace krg {
namespace {

constexpr std::string_view kPosixFolder = "/dev/shm/";
constexpr std::string_view kSystemVName = "/SYSV";  // proc_pid_maps(5) shows the key after it

// Names in the folder of what this process itself has mapped: Open MPI's shared memory between
// ranks, which no program looks for.
std::set<std::string> own_objects() {
  std::set<std::string> own;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);)
    if (const size_t at = line.find(kPosixFolder); at != std::string::npos)
      own.insert(line.substr(at + kPosixFolder.size()));
  return own;
}

// The folder itself is one file. A tmpfs without a limit on files counts none: then who knows.
bool node_has_posix_objects() {
  struct statfs space {};
  if (statfs("/dev/shm", &space) != 0) return false;
  if (space.f_files != 0 && space.f_files - space.f_ffree <= 1) return false;
  static const std::set<std::string> own = own_objects();
  std::error_code error;
  for (const auto& object : std::filesystem::directory_iterator("/dev/shm", error))
    if (!own.contains(object.path().filename())) return true;
  return static_cast<bool>(error);
}

bool node_has_system_v_segments() {
  struct shm_info info {};
  return shmctl(0, SHM_INFO, reinterpret_cast<struct shmid_ds*>(&info)) >= 0 && info.used_ids > 0;
}

// "from-to rw-s offset device inode   path"
bool is_shared_line(std::string_view line, const auto& is_name) {
  const size_t modes = line.find(' ');
  const size_t path = line.find('/');
  if (modes == std::string_view::npos || path == std::string_view::npos) return false;
  const std::string_view name = line.substr(path);
  return line.substr(modes + 1, 4).ends_with('s') && is_name(name);
}

bool any_shared_line(pid_t pid, const auto& is_name) {
  std::ifstream maps(fmt::format("/proc/{}/maps", pid));
  for (std::string line; std::getline(maps, line);)
    if (is_shared_line(line, is_name)) return true;
  return false;
}

}  // namespace

bool is_posix_shared_memory(std::string_view path) {
  return path.starts_with(kPosixFolder);
}

bool maps_shared_memory(pid_t pid) {
  if (!node_has_posix_objects() && !node_has_system_v_segments()) return false;
  return any_shared_line(pid, [](std::string_view name) {
    return is_posix_shared_memory(name) || name.starts_with(kSystemVName);
  });
}

}  // namespace krg
