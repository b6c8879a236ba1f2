// TaskIo: where the tasks' standard streams lead: krgrun's own descriptors (the default: nothing in
// between), files named by srun's patterns, labelled lines, or a pseudo-terminal.
//
// Threads: one; the relays run when poll(2) says that descriptors() are ready.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <poll.h>
#include <termios.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"
#include "run_options.h"
#include "task_launch.h"

namespace krg {

// srun's file patterns: %j job, %J job, %N node name, %n node number, %t task, %u user, %% percent;
// %4t pads with zeros.
struct PatternValues {
  std::string job, node_name;
  unsigned node = 0, task = 0;
};
std::string expand_pattern(const std::string& pattern, const PatternValues& values);

class TaskIo {
 public:
  // Opens files, pipes and the pseudo-terminal. Errors: what open(2) says, with the file's name.
  static Result<std::unique_ptr<TaskIo>> open(const RunOptions& options,
                                              const PatternValues& values);
  ~TaskIo();  // gives the terminal its settings back

  const std::vector<TaskStreams>& streams() const { return streams_; }
  // To be called when the tasks have their streams: closes this side's copies.
  void tasks_started();
  void add_descriptors(std::vector<pollfd>& polled) const;
  void handle(const pollfd& ready);
  // The caller's window has changed its size.
  void window_changed() const;
  // What the tasks wrote until they ended.
  void drain();

 private:
  struct Lines {  // one labelled stream
    UniqueFd from;
    int to;
    std::string label, partial;
  };
  TaskIo() = default;
  Status open_files(const RunOptions& options, PatternValues values);
  Status open_labels(const RunOptions& options);
  Status open_terminal();
  bool relay(Lines& lines);
  bool relay_terminal_output();
  void relay_terminal_input();

  std::vector<TaskStreams> streams_;
  std::vector<UniqueFd> given_;  // this side's copies of what the tasks got
  std::vector<UniqueFd> files_;
  std::vector<Lines> lines_;
  UniqueFd terminal_;  // the pseudo-terminal's master
  bool reads_input_ = false;
  std::optional<termios> saved_;
};

}  // namespace krg
