// SPDX-License-Identifier: GPL-2.0-or-later
#include "namespaces.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>

#include "small_files.h"

namespace krg {
namespace {

struct Kind {
  std::string_view name;
  int flag;
};
// In the order in which they must be joined.
constexpr std::array<Kind, 7> kKinds = {{{"user", CLONE_NEWUSER},
                                         {"pid", CLONE_NEWPID},
                                         {"net", CLONE_NEWNET},
                                         {"ipc", CLONE_NEWIPC},
                                         {"uts", CLONE_NEWUTS},
                                         {"cgroup", CLONE_NEWCGROUP},
                                         {"mnt", CLONE_NEWNS}}};

ino_t own_inode(std::string_view name) {
  struct stat status {};
  // The PID namespace that counts is the one of children to come.
  std::string file = name == "pid" ? "pid_for_children" : std::string(name);
  return stat(("/proc/self/ns/" + file).c_str(), &status) == 0 ? status.st_ino : 0;
}

struct CapabilityState {
  std::array<__user_cap_data_struct, 2> words{};
};

Result<CapabilityState> read_capabilities() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CapabilityState state;
  if (syscall(SYS_capget, &header, state.words.data()) != 0) return errno_error("capget");
  return state;
}

bool bit_of(const CapabilityState& state, unsigned capability) {
  return state.words[capability / 32].effective >> (capability % 32) & 1;
}

}  // namespace

void NamespaceSet::add(std::string name, UniqueFd fd) {
  members_.emplace_back(std::move(name), std::move(fd));
}

Status NamespaceSet::add_own(std::string name) {
  std::string path = "/proc/self/ns/" + name;
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return errno_error(path);
  add(std::move(name), std::move(fd));
  return {};
}

Status NamespaceSet::enter() const {
  std::vector<std::pair<Kind, int>> to_join;
  for (const Kind& kind : kKinds)
    for (const auto& [name, fd] : members_) {
      if (name != kind.name) continue;
      struct stat status {};
      if (fstat(fd.get(), &status) != 0) return errno_error("namespace " + name);
      if (status.st_ino != own_inode(name)) to_join.emplace_back(kind, fd.get());
    }
  // All are compared before any is joined: afterwards /proc is another one.
  for (const auto& [kind, fd] : to_join)
    if (setns(fd, kind.flag) != 0)
      return errno_error("cannot join the session's " + std::string(kind.name) + " namespace");
  return {};
}

std::vector<std::string> NamespaceSet::names() const {
  std::vector<std::string> names;
  for (const auto& [name, fd] : members_) names.push_back(name);
  return names;
}

std::vector<int> NamespaceSet::descriptors() const {
  std::vector<int> fds;
  for (const auto& [name, fd] : members_) fds.push_back(fd.get());
  return fds;
}

bool has_admin_capability() {
  auto state = read_capabilities();
  return state && bit_of(*state, CAP_SYS_ADMIN);
}

Status enter_new_user_namespace() {
  const std::string uid = std::to_string(geteuid()), gid = std::to_string(getegid());
  if (unshare(CLONE_NEWUSER) != 0)
    return errno_error(
        "an ordinary user needs user namespaces, and this machine forbids them "
        "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces)");
  // user_namespaces(7): without CAP_SETGID outside, gid_map may be written only after setgroups is
  // denied.
  if (auto denied = write_small_file("/proc/self/setgroups", "deny"); !denied) return denied;
  if (auto mapped = write_small_file("/proc/self/uid_map", uid + " " + uid + " 1"); !mapped)
    return mapped;
  return write_small_file("/proc/self/gid_map", gid + " " + gid + " 1");
}

Status keep_capabilities_over_exec() {
  auto state = read_capabilities();
  if (!state) return state.error();
  for (auto& word : state->words) word.inheritable = word.permitted;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  if (syscall(SYS_capset, &header, state->words.data()) != 0) return errno_error("capset");
  for (unsigned capability = 0; capability < 64; ++capability) {
    if (!(state->words[capability / 32].permitted >> (capability % 32) & 1)) continue;
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0)
      return errno_error("PR_CAP_AMBIENT_RAISE");
  }
  return {};
}

Status drop_ambient_capabilities() {
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
    return errno_error("PR_CAP_AMBIENT_CLEAR_ALL");
  return {};
}

Status keep_thread_id_choice() {
  constexpr unsigned kCheckpointRestore = 40;  // not in every header
  if (auto dropped = drop_ambient_capabilities(); !dropped) return dropped;
  auto state = read_capabilities();
  if (!state) return state.error();
  state->words[kCheckpointRestore / 32].inheritable |= 1U << (kCheckpointRestore % 32);
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  if (syscall(SYS_capset, &header, state->words.data()) != 0) return errno_error("capset");
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kCheckpointRestore, 0, 0) != 0)
    return errno_error("PR_CAP_AMBIENT_RAISE");
  return {};
}

Status make_mounts_slave() {
  if (mount("none", "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0)
    return errno_error("making the mounts private");
  return {};
}

bool die_with_parent(int signal, int pipe_end) {
  prctl(PR_SET_PDEATHSIG, signal);
  pollfd other{pipe_end, 0, 0};
  return poll(&other, 1, 0) == 0;
}

Status in_namespace(int fd, int flag, const std::function<Status()>& work) {
  Status result;
  std::thread([&] {
    if (setns(fd, flag) != 0)
      result = errno_error("setns");
    else
      result = work();
  }).join();
  return result;
}

}  // namespace krg
