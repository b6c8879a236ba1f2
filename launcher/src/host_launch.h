// Machines that a file names, reached by mpirun over a remote shell (krgrun --hostfile).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "run_options.h"

namespace krg {

// The hosts of options.host_file, less what -w and -x leave out, at most -N. One host a line: its
// first word; # begins a comment. Errors: too few; the first is not this machine, where the program
// starts.
Result<std::vector<std::string>> choose_listed_hosts(const RunOptions& options);

// The mpirun that starts one krgd_boot on each host. The programs and `cluster_dir` have the same
// paths on all.
std::vector<std::string> host_launch_command(const std::vector<std::string>& hosts,
                                             const std::string& remote_shell,
                                             const std::string& cluster_dir);

}  // namespace krg
