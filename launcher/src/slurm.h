// Slurm: what krgrun does inside a Slurm allocation.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "run_options.h"

namespace krg {

// The allocation that this process runs in.
class SlurmAllocation {
 public:
  // Nothing outside of one.
  static std::optional<SlurmAllocation> current();

  // This process is one of several ranks of `srun --mpi=pmix krgrun ...`.
  bool is_rank_of_step() const { return step_tasks_ > 1; }
  unsigned rank() const { return rank_; }
  unsigned rank_count() const { return step_tasks_; }
  // The cluster folder's name: one per step for ranks (all agree on it), else one per krgrun.
  std::string cluster_name() const;

  // The hosts to run on: the allocation's, less what -w and -x leave out, at most -N. Errors: too
  // few, or scontrol fails.
  Result<std::vector<std::string>> choose_hosts(const RunOptions& options) const;
  // True when this process runs on `host`, under slurmd.
  bool is_on(const std::string& host) const { return node_name_ == host; }

  // Replaces this process by an srun that runs krgrun with the same arguments on `host`.
  static Error continue_on(const std::string& host, int argc, char** argv, bool pty);
  // The command that starts one krgd_boot on each host; the environment for it.
  static std::vector<std::string> launch_command(const std::vector<std::string>& hosts,
                                                 const RunOptions& options,
                                                 const std::string& cluster_dir);

 private:
  std::string job_id_, step_id_, node_list_, node_name_;
  unsigned rank_ = 0, step_tasks_ = 1;
};

}  // namespace krg
