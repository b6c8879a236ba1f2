// ForkHabits: whether the children that a program forks tend to execute another program at once. A
// child that does costs least when it is placed at that exec; one that runs on has to be moved at
// its fork. So each program's last children say what its next one will do, as a branch predictor
// does it: a small counter a program.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>

#include "krg/procmgr/known_forkers.h"

namespace krg {

// As many programs are remembered.
inline constexpr size_t kMaxForkHabits = 1024;

class ForkHabits {
 public:
  using Program = KnownForkers::Program;

  // A program that has never forked is expected to run on.
  bool expects_exec(const Program& program) const;
  void execed(const Program& program);
  void ran_on(const Program& program);

 private:
  static constexpr int kSure = 2;
  int& counter(const Program& program);

  std::map<Program, int> counters_;  // > 0: execs
};

}  // namespace krg
