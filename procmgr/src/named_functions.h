// names_function(): whether a program may call a function of a library, as far as its file tells.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>

#include "krg/runtime/result.h"

namespace krg {

// Whether the dynamic string table of the ELF file at `path` has that name. Programs that are
// linked statically have none, scripts neither: false. Errors: of open(2), read(2).
Result<bool> names_function(const std::string& path, std::string_view function);

}  // namespace krg
