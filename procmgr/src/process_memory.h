// Memory of a process of this node, named by any of its threads, which may run meanwhile. Any
// thread. Errors: those of process_vm_readv(2); EFAULT, too, when only a part of it is there.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <span>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

Status read_process_memory(pid_t tid, RemoteAddr from, std::span<char> to);
Status write_process_memory(pid_t tid, RemoteAddr to, std::string_view bytes);

}  // namespace krg
