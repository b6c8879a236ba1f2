// GatheredProcesses: which processes' threads have come home where several nodes did not pay, for
// krgrun to tell its user, who may have asked for several nodes. Threads: the loop's thread. Owned
// by Spreading.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace krg {

class ControlServer;

class GatheredProcesses {
 public:
  static constexpr size_t kMost = 64;  // that nobody has asked for yet

  // To be called when its threads come home: the first time counts. Not after this has gone. None
  // where `job` is empty.
  std::function<void()> reporter(const std::string& job, pid_t pid);
  // Those of a job: [{"pid", "command", "after_s"}]; once.
  nlohmann::json take(const std::string& job);
  // "spread.gathered" {"job"}: {"processes": take(job)}.
  void add_commands(ControlServer& server);

 private:
  struct Process {
    std::string job, command;
    pid_t pid;
    double after_s;  // after it was spread
  };
  std::deque<Process> processes_;
};

}  // namespace krg
