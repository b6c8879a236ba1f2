// SPDX-License-Identifier: GPL-2.0-or-later
#include "fork_habits.h"

#include <fmt/core.h>
#include <sys/stat.h>

#include <algorithm>

namespace krg {

Result<ForkHabits::Program> ForkHabits::program_of(pid_t pid) {
  struct stat file {};
  if (stat(fmt::format("/proc/{}/exe", pid).c_str(), &file) != 0) return errno_error("exe");
  return Program{file.st_dev, file.st_ino};
}

bool ForkHabits::expects_exec(const Program& program) const {
  auto found = counters_.find(program);
  return found != counters_.end() && found->second > 0;
}

void ForkHabits::execed(const Program& program) {
  int& count = counter(program);
  count = std::min(count + 1, kSure);
}

void ForkHabits::ran_on(const Program& program) {
  int& count = counter(program);
  count = std::max(count - 1, -kSure);
}

int& ForkHabits::counter(const Program& program) {
  if (counters_.size() >= kMaxForkHabits && !counters_.contains(program)) counters_.clear();
  return counters_[program];
}

}  // namespace krg
