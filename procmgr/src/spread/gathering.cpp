// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/gathering.h"

#include <algorithm>
#include <utility>

namespace krg {
namespace {

// What they compute must be worth so much of what home could.
constexpr double kLeastWorth = 0.6;
// What a page that comes back costs at the least: two faults, here and where it was. Where that, or
// what was waited for them, is a small part of what they compute, they wait for something else:
// input, sleeps, other programs. Few such pages say nothing, unless each takes long: where krgd has
// to share the processors with others.
constexpr std::chrono::microseconds kReturnCost{120};
constexpr double kSmallPart = 0.1;
constexpr uint64_t kFewReturns = 20;
constexpr unsigned kWastedInARow = 2;
// After they were sent away, pages go there that do not come back.
constexpr unsigned kFirstSamples = 1;

}  // namespace

bool Gathering::is_wasted(const Sample& before, const Sample& now) {
  // A page that goes to and fro between home and another node comes back to both.
  const uint64_t at_home = now.returns - before.returns;
  const uint64_t returns =
      std::max(at_home, (at_home + now.returns_elsewhere - before.returns_elsewhere) / 2);
  const auto waited = now.waited - before.waited;
  if (returns < kFewReturns && waited < (now.at - before.at) * kSmallPart) return false;
  const auto computed = std::max(now.computed - now.spun - (before.computed - before.spun),
                                 std::chrono::nanoseconds{0});
  if (std::max<std::chrono::nanoseconds>(returns * kReturnCost, waited) < computed * kSmallPart)
    return false;
  const auto could = (now.at - before.at) * std::min(now.threads, now.processors);
  return computed < could * kLeastWorth;
}

Gathering::Advice Gathering::look(const Sample& sample) {
  const auto before = std::exchange(last_, sample);
  if (gathered_at_) {
    if (rests(sample.at)) return Advice::kStay;
    gathered_at_.reset();
    rest_ = std::min(rest_ * 2, kLongestRest);
    wasted_ = 0;
    unread_ = kFirstSamples;
    return Advice::kSpread;
  }
  if (!before) return Advice::kStay;
  if (unread_ > 0) {
    --unread_;
    return Advice::kStay;
  }
  wasted_ = is_wasted(*before, sample) ? wasted_ + 1 : 0;
  if (wasted_ < kWastedInARow) return Advice::kStay;
  gathered_at_ = sample.at;
  return Advice::kGather;
}

}  // namespace krg
