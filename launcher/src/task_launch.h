// TaskLaunch: starts the copies of the program inside the session, as children of the calling
// process: a short-lived helper joins the session's namespaces and makes each task with
// CLONE_PARENT, so that krgrun itself stays where it is, and yet waits for its program, shares its
// terminal and process group with it, and signals it natively.
//
// Threads: one (setns(2) of a user namespace refuses others).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <signal.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "namespaces.h"
#include "restart_task.h"

namespace krg {

// The exit statuses of krgrun that are not the program's.
namespace exit_status {
inline constexpr int kNodeFailure = 122;
inline constexpr int kTimeout = 124;
inline constexpr int kLaunchFailure = 125;
inline constexpr int kNotExecutable = 126;
inline constexpr int kNotFound = 127;
}  // namespace exit_status

// What a task reads and writes; -1: what krgrun itself has.
struct TaskStreams {
  int input = -1, output = -1, error = -1;
  bool controlling_terminal = false;  // input is a terminal that becomes the task's own
};

struct TaskLaunch {
  const NamespaceSet* namespaces = nullptr;  // null: inside the session already
  std::string control_path;                  // as seen inside the session
  uint32_t job = 0;
  unsigned node = 0, node_count = 1;
  bool distant_threads = false;  // the tasks' threads may run on other nodes
  bool shared_files = false;     // mappings of files are krgd's business
  bool forks_by_clone = false;   // krgd has to see each fork
  bool remote_memory = false;    // what the tasks do with memory is krgd's business
  std::string directory;
  std::vector<std::string> program;
  std::vector<std::string> environment;
  std::optional<RestartPlan> restart;  // in place of program and environment
  sigset_t signal_mask{};              // what the program starts with

  // Starts one task per element; their pids in order. Errors: joining the session. What goes wrong
  // later a task itself says on its stderr, and ends with one of the statuses above.
  Result<std::vector<pid_t>> start(const std::vector<TaskStreams>& tasks) const;

 private:
  [[noreturn]] void join_and_clone(const std::vector<TaskStreams>& tasks, int report,
                                   int parent_pipe) const;
  [[noreturn]] void become_task(const TaskStreams& streams, unsigned id, int parent_pipe) const;
  Status register_with_krgd() const;
  [[noreturn]] void exec_program(unsigned id) const;
};

}  // namespace krg
