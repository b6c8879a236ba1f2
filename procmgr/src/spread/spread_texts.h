// SpreadTexts: completes the texts of /proc/PID of spread processes: times used on other nodes,
// states of threads that run there (the kernel of their home takes them for stopped, by a tracer),
// and what lies in memory that procfs cannot wait for.
//
// Threads: the loop's thread. Owned by Spreading. Source: proc_pid_stat(5), proc_pid_cmdline(5).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "krg/procmgr/proc_texts.h"
#include "pid_texts.h"
#include "spread/spread_process.h"

namespace krg {

class SpreadTexts {
 public:
  using Find = std::function<SpreadProcess*(pid_t tid)>;
  using Done = std::function<void(Result<std::string>)>;

  // `find`: the spread process of this node that a thread is one of; null: of none.
  explicit SpreadTexts(Find find) : find_(std::move(find)) {}
  SpreadTexts(const SpreadTexts&) = delete;
  SpreadTexts& operator=(const SpreadTexts&) = delete;

  ProcTexts texts();

 private:
  void complete(ProcText asked, Done done);
  static void complete_state(SpreadProcess& process, ProcText asked, Done done);
  static void read_memory(SpreadProcess& process, const ProcText& asked, Done done);

  const Find find_;
};

// What /proc/PID/cmdline shows of memory that begins with the arguments, `arguments` bytes of them;
// a program may have written over their end (setproctitle(3)), into what follows. Pure.
std::string command_line(std::string memory, size_t arguments);
// A thread's state as it is to be shown. `here`: the kernel's of its home; `elsewhere`: of the node
// where it runs, '?' when it runs here. Pure.
char shown_state(char here, char elsewhere, bool is_stopped);

}  // namespace krg
