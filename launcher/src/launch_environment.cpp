// SPDX-License-Identifier: GPL-2.0-or-later
#include "launch_environment.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "environment_variables.h"

namespace krg {
namespace {

struct Names {
  const char* rank;
  const char* size;
};
// Open MPI's mpirun; Slurm's srun (PMIX_RANK comes with no size of its own).
constexpr Names kLaunchers[] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"}};

constexpr std::string_view kMpiPrefixes[] = {"SLURM_",
                                             "PMI_",
                                             "PMIX_",
                                             "OMPI_COMM_",
                                             "OMPI_UNIVERSE",
                                             "OMPI_APP_CTX",
                                             "OMPI_NUM_APP",
                                             "OMPI_FIRST_",
                                             "OMPI_FILE_",
                                             "OMPI_ARGV",
                                             "OMPI_COMMAND",
                                             "OMPI_MCA_ess",
                                             "OMPI_MCA_plm",
                                             "OMPI_MCA_orte_",
                                             "OMPI_MCA_pmix",
                                             "OMPI_MCA_ras",
                                             "OMPI_MCA_initial_wdir"};

bool belongs_to_mpi_job(std::string_view variable) {
  for (std::string_view prefix : kMpiPrefixes)
    if (variable.substr(0, prefix.size()) == prefix) return true;
  return false;
}

}  // namespace

LaunchPosition launch_position() {
  for (const Names& names : kLaunchers) {
    const char* rank = std::getenv(names.rank);
    const char* size = std::getenv(names.size);
    if (rank && size)
      return {static_cast<unsigned>(std::strtoul(rank, nullptr, 10)),
              static_cast<unsigned>(std::strtoul(size, nullptr, 10))};
  }
  return {};
}

std::vector<std::string> environment_outside_of_mpi() {
  std::vector<std::string> kept;
  for (char** variable = environ; *variable; ++variable)
    if (!belongs_to_mpi_job(*variable)) kept.emplace_back(*variable);
  return kept;
}

std::string libexec_dir() {
  if (const char* given = std::getenv("KRG_LIBEXEC_DIR"); given && *given) return given;
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  const fs::path folder = self.parent_path();
  if (folder.filename() == "kerrighed") return folder;  // this is one of them
  return folder.parent_path() / "libexec" / "kerrighed";
}

void tell_allocations(std::vector<std::string>& environment) {
  put_first(environment, "LD_PRELOAD", libexec_dir() + "/libkrgsites.so");
}

}  // namespace krg
