// CrashReport: a process that crashes says so on its stderr, with the calls that led there, before
// it dies as it would have:
//
//   krgd crashed: Segmentation fault at 0x10, in the calls
//   /usr/libexec/kerrighed/krgd(+0x1a2b3c)[0x55...]
//
// (addr2line -e FILE -f -C OFFSET tells their lines). For SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT.
// Threads: any may crash; the one that installs it also where its stack has overflowed.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>

namespace krg {

// What such a report begins with, behind the program's name.
inline constexpr char kCrashed[] = " crashed: ";

// `program`: as the report calls it; a literal. Replaces handlers of these signals.
void install_crash_report(const char* program);

// The last report in a log file, and what was written behind it, 40 lines at the most; empty: there
// is none, or no such file.
std::string last_crash(const std::string& log_file);
// The last lines of a log file, three at the most: why what wrote it has ended, when it did not
// crash. Empty: none, or no such file.
std::string end_of_log(const std::string& log_file);

}  // namespace krg
