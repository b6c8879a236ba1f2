// SPDX-License-Identifier: GPL-2.0-or-later
#include "check/probes.h"

namespace krg {
namespace {

constexpr const char* kNewerKernel = "boot a kernel >= 6.1 (Debian 12 has it)";

constexpr Probe kProbes[] = {
    {"kernel_version", true, "everything", kNewerKernel, probe_kernel_version},
    {"root", false, "nothing: an ordinary user's sessions live in a user namespace", "none needed",
     probe_root},
    {"user_namespaces", true, "krgrun as an ordinary user; root's sessions do without",
     "sysctl -w user.max_user_namespaces=15000", probe_user_namespaces},
    {"apparmor_userns", true, "krgrun as an ordinary user: mounts of the session are refused",
     "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0", probe_apparmor_userns},
    {"network_namespaces", false, "virtual nodes (krgrun -N on one machine)",
     "apt-get install iproute2; modprobe bridge; modprobe veth", probe_network_namespaces},
    {"set_tid", true, "processes that run on another node than they were forked on", kNewerKernel,
     probe_set_tid},
    {"ns_last_pid", true, "pids that name one process in the whole cluster",
     "boot a kernel with CONFIG_CHECKPOINT_RESTORE=y", probe_ns_last_pid},
    {"timer_slack", true, "capabilities that a process hands on to its children",
     "give the container CAP_SYS_NICE", probe_timer_slack},
    {"pid_max", false, "clusters of many nodes: each gets fewer pids",
     "sysctl -w kernel.pid_max=4194304", probe_pid_max},
    {"seccomp_notification", true, "signals, waits and exec across nodes",
     "allow seccomp(2) in the container's profile, or boot a kernel >= 6.1",
     probe_seccomp_notification},
    {"pidfd_getfd", true, "descriptors that go with a process to another node",
     "allow pidfd_getfd(2) in the container's profile", probe_pidfd_getfd},
    {"ptrace", true, "placement at exec, migration, checkpoints",
     "sysctl -w kernel.yama.ptrace_scope=1", probe_ptrace},
    {"fuse_device", false, "the cluster in /proc, remote descriptors", "chmod 0666 /dev/fuse",
     probe_fuse_device},
    {"fuse_in_user_namespace", false,
     "the cluster in /proc and remote descriptors for an ordinary user", "chmod 0666 /dev/fuse",
     probe_fuse_in_user_namespace},
    {"userfaultfd", false, "shared memory over nodes, migration on demand", kNewerKernel,
     probe_userfaultfd},
    {"userfaultfd_kernel_faults", false,
     "/dev/shm and System V segments of the whole cluster (it has to be root's, so far)",
     "sysctl -w vm.unprivileged_userfaultfd=1", probe_userfaultfd_kernel_faults},
    {"dirty_pages", false, "incremental checkpoints", "boot a kernel >= 6.7", probe_dirty_pages},
    {"soft_dirty", false, "incremental checkpoints, where dirty_pages is lacking",
     "boot a kernel with CONFIG_MEM_SOFT_DIRTY=y", probe_soft_dirty},
    {"open_mpi", true, "the start of a cluster", "apt-get install openmpi-bin", probe_open_mpi},
    {"libfabric", true, "the ofi transport", "apt-get install libfabric1", probe_libfabric},
    {"ucx", false, "MPI over UCX", "apt-get install libucx0 ucx-utils", probe_ucx},
    {"hwloc", false, "kradm nodes status", "apt-get install libhwloc15", probe_hwloc},
    {"hdf5", false, "checkpoints", "apt-get install libhdf5-openmpi-103", probe_hdf5},
    {"slurm", false, "srun, sbatch and salloc: only mpirun and virtual nodes work",
     "apt-get install slurm-client", probe_slurm},
};

}  // namespace

std::span<const Probe> machine_probes() {
  return kProbes;
}

}  // namespace krg
