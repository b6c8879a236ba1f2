// The command line of krgrun: names and meanings follow srun(1); each long option's default may
// come from KRGRUN_<NAME> in the environment.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "openmp_runtime.h"

namespace krg {

enum class StatisticsForm { kNone, kText, kJson };
enum class LauncherKind { kAuto, kVirtual, kMpirun, kSlurm };

struct RunOptions {
  std::optional<unsigned> nodes;  // -N
  unsigned tasks = 1;             // -n
  std::optional<unsigned> cpus_per_task;
  std::optional<std::chrono::seconds> time_limit;  // --timeout, or -t in srun's notation
  std::string node_list, exclude;                  // -w, -x
  std::string directory;                           // -D; empty: the caller's
  std::string exports = "ALL";
  std::string input, output, error;  // file patterns; empty: the caller's descriptors
  std::string host_file;
  std::string remote_shell = "ssh";
  std::string cluster;  // join this one; "none": always start one
  LauncherKind launcher = LauncherKind::kAuto;
  std::string caps;
  uint64_t memory_per_node = 0;  // bytes; 0: not given
  std::string shared_files;      // a folder; empty: not given
  bool balance = false;          // implies +CAN_MIGRATE
  // Checkpoints of the program; the folder is absolute, empty: none.
  std::string checkpoint_folder;
  std::optional<std::chrono::seconds> checkpoint_every;
  bool restarts_lazily = false;                       // runs before all pages are loaded
  bool checkpoints_files = false;                     // what they have open for writing, too
  unsigned checkpoints_kept = 0;                      // 0: all
  bool closes_lost_peers = false;                     // at a restart, which they end otherwise
  std::string restart_folder;                         // absolute; the program comes from there
  unsigned restart_version = 0;                       // 0: the newest
  int restart_fd = -1;                                // is told how that went; -1: none
  StatisticsForm statistics = StatisticsForm::kNone;  // of processes spread over nodes
  OpenmpRuntime openmp = OpenmpRuntime::kAuto;
  bool says_threads = false;      // --threads was given
  bool threads_come_home = true;  // from nodes where they wait for pages more than they compute
  bool multiple_writers = false;  // of a page of a process spread over nodes
  bool own_network = true;
  bool label = false;
  bool pty = false;
  bool kill_on_bad_exit = false;
  bool dry_run = false;
  int verbosity = 0;
  std::vector<std::string> program;

  bool wants_help = false;
  bool wants_version = false;
};

// Errors: one sentence for the user.
Result<RunOptions> parse_run_options(int argc, char** argv);
std::string run_usage();

// srun's time limits: minutes, minutes:seconds, hours:minutes:seconds,
// days-hours[:minutes[:seconds]].
Result<std::chrono::seconds> parse_time_limit(const std::string& text);

}  // namespace krg
