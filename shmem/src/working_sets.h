// WorkingSets: which pages each thread of a program was shown last. A thread that comes back for
// one of them since others took it in between needs several pages at once, or one for longer than
// pages are held for who asked: it would be shown one for each step that it makes. Who waits for a
// word that others will write comes back, too, but for that word.
//
// Threads: the loop's thread. Owned by a page set.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <deque>
#include <unordered_map>
#include <vector>

#include "krg/shmem/page_set.h"

namespace krg {

class WorkingSets {
 public:
  using Clock = std::chrono::steady_clock;
  struct Touch {
    PageIndex page;
    RemoteAddr address;
    bool write;
  };

  // Who is back after this time has been away.
  explicit WorkingSets(std::chrono::microseconds not_long) : not_long_(not_long) {}

  // The thread (as its own PID namespace calls it) is shown what it touched. Returns whether it is
  // back for a page that it was shown not long before, at another place, or to write what it had
  // read.
  bool shown(uint32_t thread, const Touch& touch, Clock::time_point now);
  // What the thread was shown last, 16 pages at the most.
  std::vector<PageIndex> pages_of(uint32_t thread) const;
  // The same; they are forgotten.
  std::vector<PageIndex> take(uint32_t thread);

 private:
  struct Shown {
    Touch touch;
    Clock::time_point at;
  };
  const std::chrono::microseconds not_long_;
  std::unordered_map<uint32_t, std::deque<Shown>> threads_;  // the latest last
};

}  // namespace krg
