// SPDX-License-Identifier: GPL-2.0-or-later
#include "check/user_namespace.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

constexpr uid_t kNobody = 65534;

Status write_file(const char* path, std::string_view text) {
  UniqueFd file(::open(path, O_WRONLY | O_CLOEXEC));
  if (!file) return errno_error(fmt::format("open {}", path));
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return errno_error(fmt::format("write {}", path));
  return {};
}

Status become_nobody() {
  if (::setgroups(0, nullptr) != 0) return errno_error("setgroups");
  if (::setresgid(kNobody, kNobody, kNobody) != 0) return errno_error("setresgid");
  if (::setresuid(kNobody, kNobody, kNobody) != 0) return errno_error("setresuid");
  // A change of user clears this (prctl(2)), and then /proc/self/uid_map belongs to root.
  if (::prctl(PR_SET_DUMPABLE, 1) != 0) return errno_error("prctl(PR_SET_DUMPABLE)");
  return {};
}

}  // namespace

Status enter_own_namespaces(int clone_flags) {
  if (::geteuid() == 0) {
    if (auto done = become_nobody(); !done) return done;
  }
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (::unshare(CLONE_NEWUSER | clone_flags) != 0) return errno_error("unshare");
  if (auto done = write_file("/proc/self/setgroups", "deny"); !done) return done;
  if (auto done = write_file("/proc/self/uid_map", fmt::format("0 {} 1", user)); !done) return done;
  return write_file("/proc/self/gid_map", fmt::format("0 {} 1", group));
}

Finding run_as_first_process(const std::function<Finding()>& probe) {
  if (auto done = enter_own_namespaces(CLONE_NEWPID | CLONE_NEWNS); !done)
    return lacking(done.error().message());
  return run_in_child([&] {
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
      return lacking_errno("mount --make-rprivate /");
    if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
      return lacking_errno("mount of a /proc of its own");
    return probe();
  });
}

}  // namespace krg
