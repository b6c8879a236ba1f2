// What /proc tells of a program's mappings and signals. Threads: any.
// Source: proc_pid_maps(5), proc_pid_status(5). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "krg/runtime/types.h"

namespace krg {

// Where `address` of the process lies in the file behind `fd`, if it maps it there.
std::optional<uint64_t> offset_in_mapped_file(pid_t pid, RemoteAddr address, int fd);

// All processes of this procfs that map the file behind `fd`. It reads their mappings, one by one.
std::vector<pid_t> processes_mapping(int fd);

// Whether the process neither ignores nor blocks the signal in its first thread.
bool accepts_signal(pid_t pid, int number);

}  // namespace krg
