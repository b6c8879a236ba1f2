// Where a session has its root (proc/, fs/), in the mount namespaces of krgd and of its programs.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>

namespace krg {

// Folders that exist on any Linux and that programs do not miss: the session's root is mounted over
// the first one that is there, so that nothing need be created on the machine's own file systems.
inline constexpr std::array kSessionRoots = {"/sys/fs/fuse/connections", "/mnt"};

}  // namespace krg
