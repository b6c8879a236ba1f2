// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/known_forkers.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process_status.h"

namespace krg {
namespace {

constexpr pid_t kInit = 1;  // krgd itself

Result<KnownForkers::Program> program_of(pid_t pid) {
  struct stat file {};
  if (stat(fmt::format("/proc/{}/exe", pid).c_str(), &file) != 0) return errno_error("exe");
  return KnownForkers::Program{file.st_dev, file.st_ino};
}

bool lives(const UniqueFd& pidfd) {
  pollfd ended{pidfd.get(), POLLIN, 0};
  return poll(&ended, 1, 0) == 0;
}

}  // namespace

Result<KnownForkers::Forker> KnownForkers::of(pid_t tid) {
  auto found = known_.find(tid);
  const uint64_t version = capabilities_.version();
  if (found != known_.end()) {
    if (found->second.version == version && lives(found->second.pidfd)) return found->second.forker;
    known_.erase(found);
  }
  auto status = read_process_status(tid);
  if (!status) return status.error();
  auto sets = capabilities_.of(status->pid);
  if (!sets) return sets.error();
  auto program = program_of(status->pid);
  if (!program) return program.error();
  const Forker forker{status->pid, *sets, *program};
  // A thread's number says nothing of its process once the thread has ended.
  if (tid == forker.pid) remember(forker, version);
  return forker;
}

void KnownForkers::remember(const Forker& forker, uint64_t version) {
  if (known_.size() >= kMaxKnownForkers)
    std::erase_if(known_, [](const auto& entry) { return !lives(entry.second.pidfd); });
  if (known_.size() >= kMaxKnownForkers) known_.clear();
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, forker.pid, 0)));
  if (pidfd) known_.emplace(forker.pid, Known{forker, std::move(pidfd), version});
}

Result<KnownForkers::Forker> KnownForkers::of_child(pid_t child, pid_t parent) {
  if (parent > kInit)
    if (Result<Forker> forker = of(parent)) return forker;
  auto sets = capabilities_.of(child);
  if (!sets) return sets.error();
  auto program = program_of(child);
  if (!program) return program.error();
  return Forker{0, *sets, *program};
}

}  // namespace krg
