// Gathering: whether the threads of a spread process belong on several nodes, or all at home
// (krgrun --threads=auto). Threads that hand the same pages round wait for them most of the time;
// one node then does as much alone. It looks at what they got done: processor time of all threads,
// on all nodes, beside what home's processors could have done in the same time, and how many pages
// came back to a node that had had them. Time that threads looked for each other's words (spun,
// fault_signs.h) is not work. Pure. Threads: the loop's thread. Owned by SpreadProcess.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace krg {

class Gathering {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kPeriod{200};  // between two samples
  // How long they stay at home before they are sent away again, to see: at first, and at the most.
  static constexpr std::chrono::seconds kFirstRest{10}, kLongestRest{320};

  struct Sample {
    Clock::time_point at;
    std::chrono::nanoseconds computed;   // in the program's own code, all threads, since it began
    std::chrono::nanoseconds spun{0};    // of that, by threads that looked for a word
    uint64_t returns = 0;                // faults at home that waited for another node, likewise
    uint64_t returns_elsewhere = 0;      // pages that came back to other nodes, likewise
    std::chrono::nanoseconds waited{0};  // for pages that came back, by all threads
    unsigned threads = 1;
    unsigned processors = 1;  // of home
  };
  enum class Advice { kStay, kGather, kSpread };

  // The advice is taken: they are at home after kGather, away after kSpread.
  Advice look(const Sample& sample);
  bool is_gathered() const { return gathered_at_.has_value(); }
  // They are at home and are to stay: no sample says anything.
  bool rests(Clock::time_point now) const { return gathered_at_ && now - *gathered_at_ < rest_; }

 private:
  static bool is_wasted(const Sample& before, const Sample& now);

  std::optional<Sample> last_;
  std::optional<Clock::time_point> gathered_at_;
  unsigned wasted_ = 0;  // samples in a row
  unsigned unread_ = 0;  // samples to come that say nothing
  std::chrono::seconds rest_ = kFirstRest;
};

}  // namespace krg
