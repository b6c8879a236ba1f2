// FaultSigns: what the page faults of a node's threads say about whether they belong there
// (gathering.h): pages that come back, which it has had before, and time that a thread looked for a
// word to change. A page that others write is taken from who reads it; who meets the very same word
// again, to read it (having read or written it before), and has touched nothing else meanwhile that
// it had to wait for, nor stopped for anything, waits for it, however busy its processor was. Pure.
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "krg/shmem/page_set.h"

namespace krg {

struct FaultSum {
  uint64_t returns = 0;   // pages that came back, or the right to write them
  int64_t waited_ns = 0;  // for these, by all threads
  int64_t spun_ns = 0;

  FaultSum& operator+=(const FaultSum& more) {
    returns += more.returns;
    waited_ns += more.waited_ns;
    spun_ns += more.spun_ns;
    return *this;
  }
  bool operator==(const FaultSum&) const = default;
};

class FaultSigns {
 public:
  using Clock = std::chrono::steady_clock;
  // A look that takes longer is counted as so much, or as long as its fault waited: who computes in
  // between for longer loses little by the fault.
  static constexpr std::chrono::microseconds kLongestLook{1200};

  void add(const PageFault& fault, Clock::time_point served);
  // The thread, as faults have it, has done something else.
  void stops(pid_t thread) { looks_.erase(thread); }
  const FaultSum& sum() const { return sum_; }

 private:
  struct Look {
    RemoteAddr word;
    Clock::time_point since;
  };
  bool is_return(const PageFault& fault);

  FaultSum sum_;
  std::unordered_map<pid_t, Look> looks_;  // the last fault of each thread
  std::vector<bool> had_;                  // by page: to read, to write
};

}  // namespace krg
