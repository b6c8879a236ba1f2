// JobRunner: krgrun's part of one job, from job.begin to job.finish: starts the tasks, waits for
// them, forwards signals, keeps the time limit, relays the pseudo-terminal and labelled lines, and
// says what the exit status is.
//
// Threads: one.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <signal.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint_request.h"
#include "krg/runtime/control_client.h"
#include "progress_bar.h"
#include "run_options.h"
#include "task_io.h"
#include "task_launch.h"

namespace krg {

class JobRunner {
 public:
  explicit JobRunner(const RunOptions& options);
  ~JobRunner();

  // Runs the program on the cluster behind `control_path` and waits for its end. Returns krgrun's
  // exit status. Errors: what keeps the program from starting.
  Result<int> run(const std::string& control_path);
  // Runs it where this process already runs inside a session: as part of the job that it belongs
  // to.
  Result<int> run_in_session();

 private:
  struct Task {
    pid_t pid;
    std::optional<int> status;
  };
  std::string crash_of(uint16_t node) const;
  std::string log_of(uint16_t node) const;
  Status begin(const std::string& control_path, TaskLaunch& launch, NamespaceSet& namespaces);
  Status open_restart(TaskLaunch& launch);
  void tell_restart(int error);
  bool wants_libkrgomp(const TaskLaunch& launch) const;
  void choose_openmp_runtime(std::vector<std::string>& environment) const;
  void spread_openmp_teams(bool is_offered, TaskLaunch& launch) const;
  void tell_gathered();
  void tell_statistics();
  Result<int> launch_and_wait(TaskLaunch& launch);
  int wait_limit_ms() const;
  void checkpoint(bool may_wait);
  void handle_signal();
  void reap();
  void task_ended(Task& task, int status);
  void follow_stop(const Task& task);
  void on_time_limit();
  void krgd_spoke();
  void signal_tasks(int signal) const;
  bool tasks_remain() const;
  int final_status() const;
  void take_terminal_back() const;

  const RunOptions& options_;
  std::optional<ControlClient> krgd_;
  uint32_t job_ = 0;
  std::vector<Task> tasks_;
  std::unique_ptr<TaskIo> io_;
  UniqueFd signals_;
  UniqueFd restart_fd_;
  sigset_t caller_mask_{};
  std::optional<std::chrono::steady_clock::time_point> deadline_;
  CheckpointRequest checkpoint_;
  ProgressBar progress_;  // of a restart
  std::string control_path_;
  std::optional<std::chrono::steady_clock::time_point> next_checkpoint_;
  bool restart_failed_ = false;
  bool restart_lost_ = false;  // its pages, of which some had not come yet
  bool timed_out_ = false;
  bool node_failed_ = false;
};

}  // namespace krg
