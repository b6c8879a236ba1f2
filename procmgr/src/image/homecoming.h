// exec_in_shadow(): a shadow execs the program of the process that it stands for, which comes home.
// It keeps its pid, parent, group, session, terminal and children; it is given what else
// BodySpawner would give to a new process: descriptors, folder, limits, credentials.
// Threads: the loop's thread, which is the tracer. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <vector>

#include "image/frozen_process.h"
#include "krg/procmgr/descriptors.h"
#include "krg/procmgr/exec_spec.h"
#include "krg/procmgr/shadow_host.h"

namespace krg {

// `done` runs perhaps later, in the loop: the new program, held before its first instruction, all
// signals blocked. Errors: ESRCH, the process has died; others: `shadow.process` is frozen, and can
// be made a shadow again.
void exec_in_shadow(LentShadow shadow, const ExecSpec& spec, std::vector<ImportedFd> fds,
                    FrozenProcess::Frozen done);

}  // namespace krg
