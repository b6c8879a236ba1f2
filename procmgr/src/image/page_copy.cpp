// SPDX-License-Identifier: GPL-2.0-or-later
#include "page_copy.h"

#include <cerrno>

namespace krg {

void PageCopy::run() {
  State found = State::kWaiting;
  if (state_.compare_exchange_strong(found, State::kRunning)) {
    put_in();
    state_ = State::kDone;
    state_.notify_all();
    return;
  }
  while (found != State::kDone) {
    state_.wait(found);
    found = state_;
  }
}

void PageCopy::put_in() {
  bool refused = false;
  for (PageSpace::Piece& piece : pieces_) {
    uint64_t done = 0;
    while (!refused && done < piece.count) {
      uint64_t more = 0;
      const auto* bytes = piece.bytes ? piece.bytes + done * kMovedPageBytes : nullptr;
      const auto content = bytes ? PageSpace::Content::kBytes : PageSpace::Content::kZeros;
      const int error = PageSpace::fill(userfaultfd_, piece.at + done * kMovedPageBytes,
                                        piece.count - done, content, bytes, more);
      done += more;
      refused = error != 0 && (error != EAGAIN || more == 0);
    }
    piece.count = done;
  }
}

}  // namespace krg
