// A thread's registers as gdb's remote protocol has them ("g" packet), and the description by which
// gdb knows their order: general, floating-point, SSE and AVX ones, and where thread-local storage
// lies. Threads: any. Source: gdb's manual, appendices E and G.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include <optional>
#include <string>

namespace krg {

// XML.
std::string gdb_target_description();

// Hexadecimal digits. `extended`: as XSAVE lays them out, up to AVX's. What is not there is told as
// not known.
std::string gdb_registers(const std::optional<user_regs_struct>& general,
                          const std::string& extended);

}  // namespace krg
