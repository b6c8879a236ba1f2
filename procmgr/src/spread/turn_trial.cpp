// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/turn_trial.h"

#include <algorithm>
#include <utility>

namespace krg {
namespace {

// Threads that wait for each other stop many times as often; less is a program's change of mind.
constexpr uint64_t kTimes = 2, kFew = 4;

}  // namespace

bool TurnTrial::look(uint64_t stops, bool crowded) {
  const uint64_t more = stops - std::exchange(last_, stops);
  if (!crowded) return false;
  stops_ += more;
  if (--left_ == 0) {
    switch (state_) {
      case State::kUsual:
        usual_ = stops_;
        begin(State::kShort, kHalf);
        break;
      case State::kShort:
        if (stops_ > usual_ * kTimes + kFew) {
          rest_ = kFirstRest;
          begin(State::kKept, kKept);
        } else {
          begin(State::kRests, rest_);
          rest_ = std::min(rest_ * 2, kLongestRest);
        }
        break;
      case State::kKept:
      case State::kRests:
        begin(State::kUsual, kHalf);
    }
  }
  return state_ == State::kShort || state_ == State::kKept;
}

void TurnTrial::begin(State state, unsigned samples) {
  state_ = state;
  left_ = samples;
  stops_ = 0;
}

}  // namespace krg
