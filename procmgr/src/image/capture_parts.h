// The parts of capture_image(): each reads one side of a frozen process. Threads: the loop's
// thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "image/frozen_process.h"
#include "image/known_mappings.h"
#include "image/process_image.h"

namespace krg {

// The kernel's code that it maps into every process: two kernels with the same have the same
// functions at the same places. Empty: there is none. Errors: ESRCH.
Result<std::string> read_vdso(const FrozenProcess& process,
                              const std::vector<ImageMapping>& mappings);
// That mapping of a list; nullptr: there is none.
const ImageMapping* find_vdso(const std::vector<ImageMapping>& mappings);

// All mappings of `pid`, and the files that they are of, which are added to `files`. `before`: how
// they were read before, which saves the time; else how they are now, for the next time.
// Errors: ENOTSUP with the reason; ESRCH.
Result<std::vector<ImageMapping>> read_mappings(pid_t pid, std::vector<ImageFile>& files,
                                                MappingTexts& before);
// Only where they are, and which are the kernel's. Errors: ESRCH.
Result<std::vector<ImageMapping>> list_mappings(pid_t pid);
std::vector<ImageMapping> kernel_mappings(const std::vector<ImageMapping>& all);
// What tells a file from another one of its path. Errors: of stat(2); ENOTSUP: not a regular file.
Result<ImageFile> identify_file(const std::string& path);

Result<ImageThread> capture_thread(FrozenProcess& process, FrozenThread& thread);
// All threads stand as the program left them: a SIGSTOP that came while they ran for krgd waits
// again.
Status settle_all(FrozenProcess& process);
// `flags`: PTRACE_PEEKSIGINFO_SHARED or 0.
Result<std::vector<ImageSignal>> read_pending_signals(pid_t tid, uint32_t flags);
// Those that wait for the process or its main thread, which have been delivered then. Errors:
// ESRCH.
Result<std::vector<ImageSignal>> take_pending_signals(FrozenProcess& process);
// timer_create(2)'s. Errors: ENOTSUP with the reason; ESRCH.
Result<std::vector<ImageTimer>> capture_timers(FrozenProcess& process);

}  // namespace krg
