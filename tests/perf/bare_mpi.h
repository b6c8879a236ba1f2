// The workload by MPI alone, as an MPI program would do it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "timing.h"

namespace krg::perf {

// Collective over ranks 0 and 1 of MPI_COMM_WORLD.
void run_bare_mpi(int rank, const Workload& work, Figures& figures);

}  // namespace krg::perf
