// What krgd may use of the machine, which is not what its programs may: it starts with the limits
// of who called krgrun, and a program's end at one of them must not be the node's. Source:
// getrlimit(2), proc_pid_oom_score_adj(5). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

namespace krg {

// Raises this process's own limits (descriptors, memory, sizes of files, processor time) as far as
// it may: to the hard ones, and root beyond them. Bodies get their programs' (BodyPlan).
void raise_own_limits();

// When memory runs out, the kernel looks for the process that frees most. krgd maps what all
// programs share; so it goes last. Only who has CAP_SYS_RESOURCE may say so.
void go_last_when_memory_runs_out();
// Where krgd may not, its programs go first. Of the process that makes tasks, which have it from
// there; it may not lower its score exactly where krgd may not.
void let_programs_go_first();

}  // namespace krg
