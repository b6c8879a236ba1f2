// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/job_namespaces.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>
#include <thread>

namespace krg {
namespace {

// unshare(2) of a UTS namespace concerns the calling thread alone, so a short-lived one makes it.
Result<UniqueFd> make_uts_namespace() {
  Result<UniqueFd> made = UniqueFd();
  std::thread maker([&made] {
    if (unshare(CLONE_NEWUTS) != 0) {
      made = errno_error("unshare(CLONE_NEWUTS)");
      return;
    }
    UniqueFd fd(open("/proc/thread-self/ns/uts", O_RDONLY | O_CLOEXEC));
    if (fd)
      made = std::move(fd);
    else
      made = errno_error("/proc/thread-self/ns/uts");
  });
  maker.join();
  return made;
}

ino_t uts_inode_of(pid_t pid) {
  struct stat status {};
  std::string path = "/proc/" + std::to_string(pid) + "/ns/uts";
  return stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

}  // namespace

Result<int> JobNamespaces::descriptor(JobId job) {
  if (auto found = namespaces_.find(job); found != namespaces_.end()) return found->second.fd.get();
  auto made = make_uts_namespace();
  if (!made) return made.error();
  struct stat status {};
  if (fstat(made->get(), &status) != 0) return errno_error("fstat");
  int fd = made->get();
  namespaces_.emplace(job, Namespace{std::move(*made), status.st_ino});
  return fd;
}

std::optional<JobId> JobNamespaces::job_of(pid_t pid) const {
  const ino_t inode = uts_inode_of(pid);
  for (const auto& [job, space] : namespaces_)
    if (inode == space.inode) return job;
  return std::nullopt;
}

std::vector<pid_t> JobNamespaces::members(JobId job) const {
  std::vector<pid_t> found;
  auto wanted = namespaces_.find(job);
  if (wanted == namespaces_.end()) return found;
  DIR* proc = opendir("/proc");
  if (!proc) return found;
  while (const dirent* entry = readdir(proc)) {
    pid_t pid = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    if (auto parsed = std::from_chars(entry->d_name, end, pid);
        parsed.ptr != end || parsed.ec != std::errc())
      continue;
    if (uts_inode_of(pid) == wanted->second.inode) found.push_back(pid);
  }
  closedir(proc);
  return found;
}

void JobNamespaces::forget(JobId job) {
  namespaces_.erase(job);
}

std::vector<JobId> JobNamespaces::jobs() const {
  std::vector<JobId> known;
  for (const auto& [job, space] : namespaces_) known.push_back(job);
  return known;
}

}  // namespace krg
