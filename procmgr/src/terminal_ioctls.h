// What ioctl(2) asks of the master of a pseudo-terminal that is at another node: which calls are
// carried out there, and what goes along. Threads: any. Source: ioctl_tty(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"

namespace krg {

// How much is read from, and written to, where the argument points; neither: it is a number.
struct TerminalIoctl {
  uint32_t command = 0;
  uint32_t bytes_in = 0, bytes_out = 0;
  // The command itself says so, and by that the kernel brings it to who serves the file.
  bool is_brought() const;
};
// Nothing: it is not carried out on another node.
std::optional<TerminalIoctl> terminal_ioctl(uint32_t command);

// On the terminal itself. Errors: of ioctl(2); EINVAL: `in` is short.
Result<std::string> carry_out_ioctl(int terminal, const TerminalIoctl& what, uint64_t argument,
                                    std::string_view in);

}  // namespace krg
