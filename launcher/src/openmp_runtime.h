// Which OpenMP runtime a program gets: the system's libgomp, or libkrgomp (procmgr/omp) in its
// place. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once
#include <string>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

enum class OpenmpRuntime { kNative, kKrg };

// The symbol versions of `library` that an ELF file of this machine's kind needs; none when it is
// no such file, or does not need the library. A file that cannot be read is an error.
Result<std::vector<std::string>> versions_needed(const std::string& file,
                                                 const std::string& library);
// Those that a library defines.
Result<std::vector<std::string>> versions_defined(const std::string& file);

// Puts libkrgomp's folder at the front of LD_LIBRARY_PATH in `environment`, unless it lacks a
// symbol version that `program` (a path, or a name to find by PATH) needs: then one sentence says
// so and the environment stays. What the program loads or starts later is not looked at here; the
// library itself does that when it is loaded.
Status use_libkrgomp(std::vector<std::string>& environment, const std::string& program);

}  // namespace krg
