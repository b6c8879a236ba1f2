// ProcTexts: what stands below /proc/PID of processes whose kernel does not know all of them: those
// with threads on other nodes. The part that knows such processes completes what procfs says.
//
// Threads: the loop's thread. Given to ProcView. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "krg/runtime/result.h"

namespace krg {

struct ProcText {
  pid_t pid = 0;  // /proc/PID: a process, or any thread of it
  pid_t tid = 0;  // /proc/PID/task/TID; 0: the process's
  std::string name;
  Result<std::string> text;  // as procfs says
};

struct ProcTexts {
  // Whether this process or thread of this node is such a one; its files are read through krgd
  // then.
  std::function<bool(pid_t)> concern = [](pid_t) { return false; };
  // `done` gets the text as it is to be.
  std::function<void(ProcText, std::function<void(Result<std::string>)> done)> complete =
      [](ProcText asked, const std::function<void(Result<std::string>)>& done) {
        done(std::move(asked.text));
      };
};

}  // namespace krg
