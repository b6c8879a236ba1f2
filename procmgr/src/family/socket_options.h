// What programs have set on a socket and getsockopt(2) tells; what the kernel chose itself is left
// to it. Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "krg/procmgr/process_family.h"

namespace krg {

std::vector<SocketOption> socket_options(int fd, int domain, int protocol);

}  // namespace krg
