// What getsockopt(2) tells of a number. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/socket.h>

namespace krg {

// -1: the socket does not know it.
inline int socket_option(int socket, int level, int name) {
  int value = 0;
  socklen_t bytes = sizeof value;
  return getsockopt(socket, level, name, &value, &bytes) == 0 ? value : -1;
}

}  // namespace krg
