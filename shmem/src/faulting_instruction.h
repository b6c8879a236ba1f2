// What kind of instruction a thread stands at that waits for a page: an atomic one (lock prefix, or
// xchg with memory) needs the only copy of it. Threads: any. Source: proc(5), Intel SDM volume 2.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <span>

#include "krg/runtime/types.h"

namespace krg {

// Of an instruction's bytes.
bool is_atomic(std::span<const std::byte> instruction);
// Of the thread, which waits in a page fault. True, too, when that cannot be told, or when reading
// the instruction might fault (`may_fault`).
bool waits_for_atomic(pid_t thread, const std::function<bool(RemoteAddr)>& may_fault);

}  // namespace krg
