// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/family_tree.h"

#include <fmt/format.h>
#include <linux/sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <csignal>

namespace krg {
namespace {

Status done(std::string what, int64_t result) {
  if (result >= 0) return {};
  return errno_error(std::move(what), static_cast<int>(-result));
}

}  // namespace

FamilyTree::~FamilyTree() {
  for (const auto& process : processes_)
    if (process) process->kill();
}

Status FamilyTree::grow(FrozenThread root) {
  processes_[0] = FrozenProcess::adopt(reaper_, std::move(root));
  const FamilyMember& first = family_.members.front();
  if (first.session == first.pid) processes_[0]->call(SYS_setsid, {});  // or it leads one already
  for (uint32_t i = 1; i < family_.members.size(); ++i)
    if (auto forked = fork(i); !forked) return forked;
  return join_groups();
}

Status FamilyTree::fork(uint32_t index) {
  const FamilyMember& member = family_.members[index];
  const auto parent = std::find_if(family_.members.begin(), family_.members.end(),
                                   [&](const FamilyMember& m) { return m.pid == member.parent; });
  FrozenProcess& process = *processes_[static_cast<size_t>(parent - family_.members.begin())];
  auto scratch = process.scratch();
  auto instruction = process.instruction();
  if (!scratch) return scratch.error();
  if (!instruction) return instruction.error();
  const RemoteAddr pid_at = *scratch + sizeof(clone_args);
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  arguments.set_tid = pid_at.value;
  arguments.set_tid_size = 1;
  if (auto put = process.write_value(*scratch, arguments); !put) return put;
  if (auto put = process.write_value(pid_at, member.pid); !put) return put;
  pid_t made = 0;
  const int64_t result =
      process.main().call_clone(*instruction, SYS_clone3, {scratch->value, sizeof arguments}, made);
  if (made == 0)
    return done(fmt::format("a process with pid {}", member.pid), result < 0 ? result : -ESRCH);
  auto thread = FrozenThread::stopped(made);
  if (!thread) return thread.error();
  processes_[index] = FrozenProcess::adopt(reaper_, std::move(*thread));
  if (member.session != member.pid) return {};
  return done("setsid", processes_[index]->call(SYS_setsid, {}));
}

// Leaders first; a session's leader is one already.
Status FamilyTree::join_groups() {
  for (const bool leads : {true, false})
    for (uint32_t i = 0; i < family_.members.size(); ++i) {
      const FamilyMember& member = family_.members[i];
      if (member.group <= 0 || (member.group == member.pid) != leads) continue;
      if (member.session == member.pid) continue;
      const auto group = static_cast<uint64_t>(member.group);
      auto joined = done(fmt::format("process group {} of {}", member.group, member.pid),
                         processes_[i]->call(SYS_setpgid, {0, group}));
      if (!joined) return joined;
    }
  return {};
}

Status FamilyTree::end_zombies() {
  for (uint32_t i = 0; i < family_.members.size(); ++i) {
    const FamilyMember& member = family_.members[i];
    if (!member.has_ended()) continue;
    FrozenProcess& process = *processes_[i];
    const int status = member.wait_status;
    if (WIFEXITED(status)) {
      process.call(SYS_exit_group, {static_cast<uint64_t>(WEXITSTATUS(status))});
    } else {
      auto scratch = process.scratch();
      if (scratch && process.write_value(*scratch, rlimit{0, 0}))
        process.call(SYS_prlimit64, {0, RLIMIT_CORE, scratch->value, 0});
      ::kill(member.pid, WTERMSIG(status));
      process.main().set_signal_mask(0);
      process.thaw();  // into the signal
    }
    processes_[i].reset();
  }
  return {};
}

}  // namespace krg
