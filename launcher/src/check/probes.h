// The probes of this machine: for each thing that we build on, whether it really works here, which
// feature suffers where it does not, and the line that mends it. A probe tries the thing itself, in
// a child process (finding.h); none changes the machine.
//
// Threads: the caller must have one thread only (probes fork).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <span>

#include "check/finding.h"

namespace krg {

struct Probe {
  const char* name;     // stable: tests and scripts refer to it
  bool required;        // nothing works without it
  const char* suffers;  // what is affected where it is lacking
  const char* mend;     // one line for an administrator
  Finding (*run)();
};

// Every probe, in the order in which it is shown.
std::span<const Probe> machine_probes();

// process_probes.cpp
Finding probe_kernel_version();
Finding probe_root();
Finding probe_user_namespaces();
Finding probe_apparmor_userns();
Finding probe_network_namespaces();
Finding probe_set_tid();
Finding probe_ns_last_pid();
Finding probe_timer_slack();
Finding probe_pid_max();
Finding probe_pidfd_getfd();
Finding probe_ptrace();
// seccomp_probe.cpp
Finding probe_seccomp_notification();
// memory_probes.cpp
Finding probe_userfaultfd();
Finding probe_userfaultfd_kernel_faults();
Finding probe_dirty_pages();
Finding probe_soft_dirty();
// fuse_probes.cpp
Finding probe_fuse_device();
Finding probe_fuse_in_user_namespace();
// library_probes.cpp
Finding probe_open_mpi();
Finding probe_libfabric();
Finding probe_ucx();
Finding probe_hwloc();
Finding probe_hdf5();
Finding probe_slurm();

}  // namespace krg
