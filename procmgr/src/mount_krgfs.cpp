// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/mount_krgfs.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <thread>

namespace krg {
namespace {

Status enter_mount_namespace(int mount_ns) {
  // setns(2): a mount namespace can be entered only with a file system context of one's own.
  if (unshare(CLONE_FS) != 0) return errno_error("unshare(CLONE_FS)");
  if (mount_ns >= 0 && setns(mount_ns, CLONE_NEWNS) != 0)
    return errno_error("setns of the session's mount namespace");
  return {};
}

Status mount_here(const std::string& path, KrgfsMount& made) {
  const std::string options = fmt::format("fd={},rootmode=40000,user_id={},group_id={},allow_other",
                                          made.fuse.get(), geteuid(), getegid());
  if (mount("krgfs", path.c_str(), "fuse.krgfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
    return errno_error("mount of krgfs over " + path);
  made.root = UniqueFd(open(path.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!made.root) return errno_error("open of " + path);
  struct statx attributes {};
  // Without AT_STATX_DONT_SYNC the kernel would ask the file system, which nobody serves yet.
  if (statx(made.root.get(), "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, 0, &attributes) != 0)
    return errno_error("statx of " + path);
  made.device = makedev(attributes.stx_dev_major, attributes.stx_dev_minor);
  return {};
}

}  // namespace

Status run_in_mount_namespace(int mount_ns, const std::function<Status()>& work) {
  Status outcome;
  std::thread([&] {
    outcome = enter_mount_namespace(mount_ns);
    if (outcome) outcome = work();
  }).join();
  return outcome;
}

Result<KrgfsMount> mount_krgfs(int mount_ns, const std::string& path) {
  KrgfsMount made;
  made.fuse = UniqueFd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!made.fuse) return errno_error("open of /dev/fuse");
  Status mounted = run_in_mount_namespace(mount_ns, [&] { return mount_here(path, made); });
  if (!mounted) return mounted.error();
  return made;
}

}  // namespace krg
