// Which OpenMP runtime a program gets: the system's libgomp, or libkrgomp (procmgr/omp) in its
// place. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <string>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

// kAuto: libkrgomp where there are several nodes and the program's own file needs libgomp.
enum class OpenmpRuntime { kAuto, kNative, kKrg };

// The symbol versions of `library` that an ELF file of this machine's kind needs; none when it is
// no such file, or does not need the library. A file that cannot be read is an error.
Result<std::vector<std::string>> versions_needed(const std::string& file,
                                                 const std::string& library);
// Those that a library defines.
Result<std::vector<std::string>> versions_defined(const std::string& file);

// Whether the file of `program` (a path, or a name to find by PATH of `environment`) was linked
// with libgomp; not when it cannot be read.
bool needs_libgomp(const std::vector<std::string>& environment, const std::string& program);

// Puts libkrgomp's folder at the front of LD_LIBRARY_PATH in `environment`, unless it lacks a
// symbol version that `program` (a path, or a name to find by PATH) needs: then one sentence says
// so and the environment stays. What the program loads or starts later is not looked at here; the
// library itself does that when it is loaded.
Status use_libkrgomp(std::vector<std::string>& environment, const std::string& program);

}  // namespace krg
