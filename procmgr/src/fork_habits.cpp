// SPDX-License-Identifier: GPL-2.0-or-later
#include "fork_habits.h"

#include <algorithm>

namespace krg {

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
