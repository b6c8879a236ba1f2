// The vdso of another build of the kernel: a program that moves here has the addresses of its
// functions. They get a jump to this kernel's function of the same name, or make its system call.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"

namespace krg {

// The bytes of the other's vdso as they are to stand where its program has them; `own` is this
// kernel's, which the process has at `own_at`. Errors: ENOTSUP.
Result<std::string> lead_vdso(std::string other, std::string_view own, RemoteAddr own_at);

}  // namespace krg
