// CheckpointRequest: a checkpoint of a job that krgrun asks for while it goes on with its own work:
// a child process of it waits for krgd's answer, and says what went wrong.
//
// Threads: one. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace krg {

class CheckpointRequest {
 public:
  CheckpointRequest() = default;
  ~CheckpointRequest();
  CheckpointRequest(const CheckpointRequest&) = delete;
  CheckpointRequest& operator=(const CheckpointRequest&) = delete;

  // Nothing while one is under way, unless it `may_wait`: then it is asked for behind that. One
  // that may not is none, without a word, when the application ends meanwhile. `control_path`:
  // krgd's socket; `arguments`: of its command (krg/checkpoint/checkpoints.h).
  void start(const std::string& control_path, const nlohmann::json& arguments, bool may_wait);
  // To be called at SIGCHLD.
  void reap();
  // Waits for one that is under way.
  void finish();

 private:
  pid_t child_ = 0;
  std::function<void()> next_;  // asks for another one
};

}  // namespace krg
