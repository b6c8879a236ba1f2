// What kind of instruction a thread stands at that waits for a page: an atomic one (lock prefix, or
// xchg with memory) needs the only copy of it. Threads: any. Source: proc(5), Intel SDM volume 2.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "krg/runtime/types.h"

namespace krg {

// Of an instruction's bytes.
bool is_atomic(std::span<const std::byte> instruction);
enum class StandsAt : uint8_t {
  kOther,
  kAtomic,   // or it cannot be told, or reading the instruction might fault (`may_fault`)
  kNothing,  // it runs: it does not wait for a page any more, or not yet
};
// The thread, which has faulted.
StandsAt stands_at(pid_t thread, const std::function<bool(RemoteAddr)>& may_fault);

}  // namespace krg
