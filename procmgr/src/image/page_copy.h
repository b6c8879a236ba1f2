// PageCopy: pages of a move that a worker puts into their process while krgd's loop takes the next
// ones: the kernel has to find memory for each, which takes longer than it takes to receive them.
//
// Threads: run() any; the rest the loop's, after run(). Owned by the PageSpaces and its worker. The
// userfaultfd and the bytes outlive its run(). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <atomic>
#include <vector>

#include "page_space.h"

namespace krg {

class PageCopy {
 public:
  PageCopy(int userfaultfd, std::vector<PageSpace::Piece> pieces)
      : userfaultfd_(userfaultfd), pieces_(std::move(pieces)) {}

  // Puts them in, once, until the kernel refuses a page. Returns when that is done, by whomever.
  void run();
  // Those that were put in.
  const std::vector<PageSpace::Piece>& done() const { return pieces_; }

 private:
  enum class State : int { kWaiting, kRunning, kDone };
  void put_in();

  const int userfaultfd_;
  std::vector<PageSpace::Piece> pieces_;  // what is left of them, until it is done
  std::atomic<State> state_ = State::kWaiting;
};

}  // namespace krg
