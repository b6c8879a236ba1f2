// What an inotify instance watches, and one that watches the same again. Its numbers of watches
// (wd) stay; events that nobody has read do not, nor are there any of what happened meanwhile: the
// new one begins with IN_Q_OVERFLOW, by which inotify(7) tells that events were lost.
//
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"
#include "watched_paths.h"

namespace krg {

// Of `instance`, a descriptor of krgd's, for make_inotify(): a text for each watch. `paths`: tried,
// those of `processes` first; null: none are known. Then files are looked for by the handles that
// the kernel tells, where krgd may open by them (CAP_DAC_READ_SEARCH). `to_close`: gets instances
// of krgd's own, whose close(2) takes tens of milliseconds. Errors: ENOTSUP: a watch is of a file
// that is found by neither; ESRCH.
Result<std::string> describe_inotify(int instance, const WatchedPaths* paths,
                                     const std::set<pid_t>& processes,
                                     std::vector<UniqueFd>& to_close);

// `flags`: O_NONBLOCK or 0. Errors: EPROTO; those of inotify_add_watch(2), with the path; ENOTSUP:
// numbers of watches cannot be chosen (CONFIG_CHECKPOINT_RESTORE).
Result<UniqueFd> make_inotify(std::string_view description, int flags);

// The paths in such a description.
std::vector<std::string> paths_of_inotify(std::string_view description);

}  // namespace krg
