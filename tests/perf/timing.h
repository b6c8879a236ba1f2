// Samples of times, and what is told of them. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace krg::perf {

using Clock = std::chrono::steady_clock;

inline double microseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// Times in microseconds of the same operation.
class Samples {
 public:
  void add(double time_us) { times_us_.push_back(time_us); }
  double median_us() const {
    if (times_us_.empty()) return 0;
    std::vector<double> sorted = times_us_;
    std::nth_element(sorted.begin(), sorted.begin() + sorted.size() / 2, sorted.end());
    return sorted[sorted.size() / 2];
  }

 private:
  std::vector<double> times_us_;
};

// What each contender does: rank 0 measures, rank 1 answers.
struct Workload {
  unsigned round_trips = 2000;
  unsigned gets = 100;
  size_t message_bytes = 64;
  size_t get_bytes = 1u << 20;
};
struct Figures {
  Samples round_trip, get;
};

}  // namespace krg::perf
