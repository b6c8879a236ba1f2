// ChildProcess: a helper that a tool started, waited for by descriptor.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class ChildProcess {
 public:
  struct Streams {
    int input = -1, output = -1, error = -1;  // -1: inherited
    bool new_session = false;                 // the terminal's signals do not reach it
  };
  // Starts words[0] (found by PATH) with `environment` (empty: this process's own) and the
  // descriptors of `keep` left open. Errors: those of fork and exec.
  static Result<ChildProcess> start(std::vector<std::string> words, Streams streams,
                                    const std::vector<int>& keep = {},
                                    std::vector<std::string> environment = {});
  ChildProcess(ChildProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept;
  ~ChildProcess();  // kills it if it still runs

  pid_t pid() const { return pid_; }
  // Readable when it has ended.
  int descriptor() const { return pidfd_.get(); }
  void signal(int number) const;
  // Lets it live on without this process.
  void release() { pid_ = -1; }
  // Its wait status; nothing when it has not ended in time.
  std::optional<int> wait_for(std::chrono::milliseconds limit);

 private:
  ChildProcess(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
  pid_t pid_ = -1;
  UniqueFd pidfd_;
};

// Waits until `fd` is readable or hung up; false when the time is over.
bool wait_readable(int fd, std::chrono::milliseconds limit);

}  // namespace krg
