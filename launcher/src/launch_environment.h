// What the launcher of a rank (mpirun, srun) says about it in its environment.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

namespace krg {

// With this a line begins that krgd_boot prints to its launcher when its node does not come up.
inline constexpr const char* kBootFailure = "krgd_boot: ";
// What krgd writes to --detach-fd when it has started: it needs the MPI launcher no more, or still.
inline constexpr char kKrgdDetached = 'd', kKrgdStarted = 's';

// This process's place in the MPI job that it was started in; {0, 1} outside of one.
struct LaunchPosition {
  unsigned rank = 0;
  unsigned size = 1;
};
LaunchPosition launch_position();

// The environment without what a surrounding MPI job or Slurm step put there, so that an MPI
// launcher started with it begins a job of its own. MCA parameters that choose transports stay.
std::vector<std::string> environment_outside_of_mpi();

// The folder of krgd, krgd_boot, krg_host and krg_shadow: $KRG_LIBEXEC_DIR, else found from this
// program's own path (a build tree or an installation).
std::string libexec_dir();

// Has programs load libkrgsites first, before what LD_PRELOAD says: they tell krgd what they
// allocate (procmgr/sites).
void tell_allocations(std::vector<std::string>& environment);

}  // namespace krg
