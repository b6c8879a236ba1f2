// SPDX-License-Identifier: GPL-2.0-or-later
#include "state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

namespace krg {
namespace {

namespace fs = std::filesystem;

constexpr int kOpenAttempts = 3;

std::string chosen_state_root() {
  if (const char* given = std::getenv("KRG_STATE_DIR"); given && *given) return given;
  if (const char* runtime = std::getenv("XDG_RUNTIME_DIR"); runtime && *runtime) {
    struct stat status {};
    // A batch job may inherit the variable from a login elsewhere, where the folder is.
    if (stat(runtime, &status) == 0 && S_ISDIR(status.st_mode) && status.st_uid == geteuid())
      return std::string(runtime) + "/krg";
  }
  return "/tmp/krg-" + std::to_string(geteuid());
}

Status make_private_dir(const std::string& path) {
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return errno_error("cannot make " + path);
  struct stat status {};
  // lstat(2): a link that another user planted in /tmp must not be followed.
  if (lstat(path.c_str(), &status) != 0) return errno_error(path);
  if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077) != 0)
    return errno_error(path + " is not a folder of this user's alone (0700)", EPERM);
  return {};
}

Result<UniqueFd> lock_file(const std::string& dir, int mode) {
  const std::string path = dir + "/lock";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return errno_error(path);
  if (flock(fd.get(), mode | LOCK_NB) != 0) return errno_error(path);
  struct stat here {
  }, held{};
  // Whoever cleaned up may have removed the file between open and flock.
  if (stat(path.c_str(), &here) != 0 || fstat(fd.get(), &held) != 0 || here.st_ino != held.st_ino)
    return errno_error(path, ESTALE);
  return fd;
}

// Removes the folder when nobody holds its lock. Returns true when it is gone.
bool remove_if_stale(const std::string& dir) {
  auto lock = lock_file(dir, LOCK_EX);
  if (!lock) return lock.error().errno_or(0) == ENOENT;
  std::error_code ignored;
  fs::remove_all(dir, ignored);
  return true;
}

}  // namespace

Result<std::string> state_root() {
  std::string path = chosen_state_root();
  if (auto made = make_private_dir(path); !made) return made.error();
  return path;
}

Result<std::string> shared_state_root() {
  const char* given = std::getenv("KRG_STATE_DIR");
  std::string path = given && *given ? given : "/tmp/krg-" + std::to_string(geteuid());
  if (auto made = make_private_dir(path); !made) return made.error();
  return path;
}

Result<ClusterDir> ClusterDir::create(const std::string& state_root, const std::string& name) {
  const std::string path = state_root + "/" + name;
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (fs::exists(path) && !remove_if_stale(path))
      return errno_error("a cluster named " + name + " is running already", EEXIST);
    auto opened = open(path, true);
    if (opened) return opened;
  }
  return errno_error(path, EAGAIN);
}

Result<ClusterDir> ClusterDir::open(const std::string& path, bool make) {
  for (int attempt = 1;; ++attempt) {
    if (make)
      for (const std::string& folder : {fs::path(path).parent_path().string(), path})
        if (auto made = make_private_dir(folder); !made) return made.error();
    auto lock = lock_file(path, LOCK_SH);
    if (lock) return ClusterDir(path, std::move(*lock));
    // Whoever clears away what is stale may have met the folder before its lock.
    if (!make || attempt == kOpenAttempts) return lock.error();
  }
}

void ClusterDir::remove() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void ClusterDir::remove_if_last() {
  if (flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) remove();
}

std::string node_dir(const std::string& cluster_dir, NodeId node) {
  return cluster_dir + "/n" + std::to_string(node.value);
}

std::string log_path(const std::string& cluster_dir, NodeId node) {
  return node_dir(cluster_dir, node) + "/krgd.log";
}

std::string control_socket_path(const std::string& cluster_dir, NodeId node) {
  return node_dir(cluster_dir, node) + "/ctl.sock";
}

std::vector<std::string> living_clusters(const std::string& state_root) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(state_root, ignored)) {
    if (!entry.is_directory(ignored)) continue;
    if (!remove_if_stale(entry.path())) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace krg
