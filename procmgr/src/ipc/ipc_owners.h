// Whose IPC objects are: they outlive processes, and nothing tells. A family that is alone has all
// of them; else those that its members were the last to use, when nobody else was.
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <set>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"

namespace krg {

// Whether an object is to be taken, of which it is known who has used it last; the error that ends
// it all. `what`: "System V semaphores 5", for people.
using TakesIpc =
    std::function<Result<bool>(std::string_view what, const std::vector<pid_t>& users)>;

// Of a family of `members` where `others` run, too. Errors: ENOTSUP: both have used it, or nobody
// that is still there.
TakesIpc takes_ipc_of(std::set<pid_t> members, std::set<pid_t> others);

}  // namespace krg
