// TurnTrial: whether threads that share their node's processors get on faster when the scheduler
// gives them short turns (ShortTurns): those that look for what another of them writes, which has
// to have its turn first, do; for those that compute short turns are only so many switches. Which
// they are cannot be seen from outside, so it is tried: how often they stop (system calls,
// barriers) with usual turns, and with short ones. Pure. Threads: the loop's thread. Owned by
// SpreadProcess. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>

namespace krg {

class TurnTrial {
 public:
  // In samples: of each half of a trial; what is found is then taken for so for a time, short turns
  // for kKept, usual ones for kFirstRest at first and twice as long each time.
  static constexpr unsigned kHalf = 2, kKept = 50, kFirstRest = 10, kLongestRest = 640;

  // `stops`: before. The first sample, in which threads may still be coming, is part of no trial.
  explicit TurnTrial(uint64_t stops = 0) : last_(stops) {}

  // To be called at equal intervals. `stops`: since they began; `crowded`: the threads are more
  // than their processors, and keep them busy. Whether turns are to be short from now on.
  bool look(uint64_t stops, bool crowded);
  // Short turns were found to be better.
  bool has_shown() const { return state_ == State::kKept; }

 private:
  enum class State { kUsual, kShort, kKept, kRests };
  void begin(State state, unsigned samples);

  State state_ = State::kRests;
  unsigned left_ = 1;   // samples of this state
  uint64_t last_;       // stops
  uint64_t stops_ = 0;  // in this state
  uint64_t usual_ = 0;  // in the trial's first half
  unsigned rest_ = kFirstRest;
};

}  // namespace krg
