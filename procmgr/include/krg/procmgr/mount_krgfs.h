// mount_krgfs(): mounts the session's FUSE file system (session_fs.h serves it).
// Threads: may be called from any; it starts a thread of its own for what must happen inside
// another mount namespace and waits for it. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// A mounted krgfs. The kernel keeps it mounted until `fuse` is closed or it is unmounted.
struct KrgfsMount {
  UniqueFd fuse;  // the connection; for SessionFs::serve()
  UniqueFd root;  // the mount's root directory, O_PATH
  dev_t device = 0;
};

// Mounts krgfs over the directory `path` of the mount namespace `mount_ns` (a descriptor; -1: the
// caller's own). The caller's PID namespace is the one whose pids requests will carry. The mount
// can be used only once a SessionFs serves it. Errors: EACCES or ENOENT for /dev/fuse (on some
// machines it is root's alone), EPERM without CAP_SYS_ADMIN over the namespace.
Result<KrgfsMount> mount_krgfs(int mount_ns, const std::string& path);

// Runs `work` in a thread that has entered the mount namespace `mount_ns` (-1: the caller's own)
// and waits for it: its root and current directory are that namespace's root. Descriptors are the
// process's. Errors: setns(2) of a mount namespace, or what `work` returns.
Status run_in_mount_namespace(int mount_ns, const std::function<Status()>& work);

}  // namespace krg
