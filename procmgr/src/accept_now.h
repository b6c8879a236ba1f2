// accept_now(): a connection that waits at a listening socket, without waiting for one, whatever
// the flags of its description say: others use that, and they may be faster.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/runtime/unique_fd.h"

namespace krg {

// None, and errno: EAGAIN when none waits, else what accept(2) says.
UniqueFd accept_now(int socket);

}  // namespace krg
