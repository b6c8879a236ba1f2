// What the kernel tells of unix sockets by sock_diag(7): who has the other end. Sockets of this
// network namespace. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>

#include "krg/runtime/result.h"

namespace krg {

struct UnixSocketFacts {
  ino_t peer = 0;        // 0: none, or it is closed
  uint32_t ended = 0;    // FamilySocket::kEndedReading, kEndedWriting
  uint32_t waiting = 0;  // of one that listens: connections to be accepted
  int32_t backlog = 0;   // of one that listens
};

// Errors: ENOENT; ENOTSUP: this kernel has no CONFIG_UNIX_DIAG.
Result<UnixSocketFacts> unix_socket_facts(ino_t socket);

}  // namespace krg
