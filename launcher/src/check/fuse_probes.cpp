// Probes of the file system that shows the cluster (/proc view, remote descriptors).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <fmt/core.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include "check/probes.h"
#include "check/user_namespace.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// Mounts a FUSE file system on /tmp of the caller's own mount namespace. The kernel only queues its
// first request, so that nobody needs to answer; nothing may look at the mount point, though.
Finding mount_fuse() {
  UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (!device) return lacking_errno("open /dev/fuse");
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return lacking_errno("mount --make-rprivate /");
  const std::string options =
      fmt::format("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.get());
  if (::mount("krg-check", "/tmp", "fuse", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
    return lacking_errno("mount of a FUSE file system");
  ::umount2("/tmp", MNT_DETACH);
  return found("mounted");
}

}  // namespace

Finding probe_fuse_device() {
  return run_in_child([] {
    UniqueFd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
    Finding finding = device ? found("/dev/fuse opens") : lacking_errno("open /dev/fuse");
    if (!device && errno == ENOENT) finding.mend = "modprobe fuse";
    return finding;
  });
}

Finding probe_fuse_in_user_namespace() {
  return run_in_child([] {
    if (auto done = enter_own_namespaces(CLONE_NEWNS); !done)
      return lacking(done.error().message());
    return mount_fuse();
  });
}

}  // namespace krg
