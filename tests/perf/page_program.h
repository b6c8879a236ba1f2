// PageProgram: a process that maps a page set and touches its pages at this one's word, timing what
// it does. It is forked before MPI and libfabric come up.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/page_set.h"

namespace krg::perf {

struct Touch {
  enum class Kind : uint32_t { kRead, kWrite, kScan };  // a word of each page, or all words
  Kind kind = Kind::kRead;
  uint32_t pause_us = 0;  // before each touch, outside of the measured time
  uint64_t first = 0, count = 0;
  uint64_t shuffled = 0;  // 0: in order, else a seed
};
struct Touched {
  double median_us = 0;  // of one touch
  double total_us = 0;
};

class PageProgram {
 public:
  PageProgram();
  ~PageProgram();
  PageProgram(const PageProgram&) = delete;
  PageProgram& operator=(const PageProgram&) = delete;

  // Has the process map the set.
  void attach(EventLoop& loop, PageSet& set);
  // One at a time; `done` runs in the loop.
  void run(const Touch& touch, std::function<void(Touched)> done);

 private:
  pid_t pid_ = 0;
  UniqueFd socket_;
  EventLoop::Watch watch_;
  std::function<void(Touched)> done_;
};

}  // namespace krg::perf
