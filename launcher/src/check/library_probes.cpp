// Probes of the libraries and programs that are used where they are: versions, and that they start.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <fmt/format.h>
#include <hwloc.h>
#include <rdma/fabric.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <set>
#include <string>

#include "check/probes.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

// The first line that `command` prints, or nothing when it fails.
std::string first_line_of(const std::string& command) {
  const std::unique_ptr<FILE, int (*)(FILE*)> output(
      ::popen((command + " 2>/dev/null").c_str(), "r"), &::pclose);
  char buffer[256] = {};
  if (!output || !std::fgets(buffer, sizeof buffer, output.get())) return {};
  std::string line(buffer);
  while (!line.empty() && line.back() == '\n') line.pop_back();
  return line;
}

Finding version_of(const char* command) {
  const std::string line = first_line_of(command);
  return line.empty() ? lacking(fmt::format("'{}' does not work", command)) : found(line);
}

}  // namespace

Finding probe_open_mpi() {
  return run_in_child([] { return version_of("mpirun --version"); });
}

Finding probe_ucx() {
  return run_in_child([] {
    Finding finding = version_of("ucx_info -v");
    if (finding.state != ProbeState::kOk) return finding;
    // "# Version 1.13.1"
    finding.detail.erase(0, finding.detail.find_first_not_of("# "));
    if (first_line_of("ompi_info --parsable | grep '^mca:pml:ucx:'").empty())
      return limited(finding.detail + ", but Open MPI has no pml/ucx");
    return finding;
  });
}

Finding probe_libfabric() {
  return run_in_child([] {
    fi_info* list = nullptr;
    std::unique_ptr<fi_info, void (*)(fi_info*)> hints(::fi_allocinfo(), &::fi_freeinfo);
    hints->ep_attr->type = FI_EP_RDM;
    hints->caps = FI_MSG | FI_RMA;
    // Providers of networks that are not there print to stderr while they look.
    if (!::freopen("/dev/null", "w", stderr)) return lacking_errno("/dev/null");
    const int failed = ::fi_getinfo(FI_VERSION(1, 17), nullptr, nullptr, 0, hints.get(), &list);
    const uint32_t version = ::fi_version();
    const std::string library = fmt::format("{}.{}", FI_MAJOR(version), FI_MINOR(version));
    if (failed != 0) return lacking(fmt::format("{}: {}", library, ::fi_strerror(-failed)));
    std::set<std::string> names;
    for (const fi_info* info = list; info; info = info->next)
      names.insert(info->fabric_attr->prov_name);
    ::fi_freeinfo(list);
    const std::string detail = fmt::format("{}: {}", library, fmt::join(names, " "));
    const bool over_tcp = names.count("net") != 0 || names.count("tcp;ofi_rxm") != 0;
    return over_tcp ? found(detail) : limited(detail + "; neither net nor tcp;ofi_rxm");
  });
}

Finding probe_hwloc() {
  const unsigned version = ::hwloc_get_api_version();
  return found(fmt::format("API {}.{}", version >> 16, (version >> 8) & 0xff));
}

Finding probe_hdf5() {
  return run_in_child([] {
    for (const char* name : {"libhdf5_openmpi.so.103", "libhdf5_openmpi.so", "libhdf5.so"}) {
      void* library = ::dlopen(name, RTLD_NOW);
      if (!library) continue;
      using GetVersion = int (*)(unsigned*, unsigned*, unsigned*);
      const auto get_version = reinterpret_cast<GetVersion>(::dlsym(library, "H5get_libversion"));
      unsigned major = 0, minor = 0, release = 0;
      if (!get_version || get_version(&major, &minor, &release) < 0) continue;
      const bool parallel = ::dlsym(library, "H5Pset_fapl_mpio") != nullptr;
      const std::string detail = fmt::format("{}.{}.{}", major, minor, release);
      return parallel ? found(detail + ", parallel") : limited(detail + ", not parallel");
    }
    return lacking("no HDF5 library");
  });
}

Finding probe_slurm() {
  return run_in_child([] {
    std::string version = first_line_of("srun --version");
    if (version.empty()) {
      // Outside of a cluster srun names its version only where it finds some configuration.
      UniqueFd file(::memfd_create("slurm.conf", 0));
      constexpr std::string_view kConfiguration = "ClusterName=none\nSlurmctldHost=localhost\n";
      if (::write(file.get(), kConfiguration.data(), kConfiguration.size()) < 0)
        return lacking_errno("memfd_create");
      ::setenv("SLURM_CONF", fmt::format("/proc/{}/fd/{}", ::getpid(), file.get()).c_str(), 1);
      version = first_line_of("srun --version");
      if (version.empty()) return lacking("no srun");
    }
    return found(version);
  });
}

}  // namespace krg
