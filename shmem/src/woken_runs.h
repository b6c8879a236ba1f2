// WokenRuns: what a page set has shown to programs in one turn of its loop. Who waits for such a
// page has been woken with whoever waited for it first: of a thousand threads that touch a page at
// a time, or pages side by side, each would take a call else, and for each call the kernel looks
// through all that wait.
//
// Threads: the page set's. Owned by it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <iterator>
#include <map>
#include <utility>

#include "program_spaces.h"

namespace krg {

class WokenRuns {
 public:
  // A turn begins, in which `faults` of them are answered and no page is taken away. Nothing is
  // remembered for a single one.
  void begin(size_t faults) {
    remembers_ = faults > 1;
    runs_.clear();
  }

  void add(ProgramPage start, size_t pages, bool writable) {
    if (remembers_)
      runs_[{start.space, start.address}] = {start.address + pages * kPageBytes, writable};
  }

  bool has(const ProgramFault& fault) const {
    const auto behind = runs_.upper_bound({fault.at.space, fault.at.address});
    if (behind == runs_.begin()) return false;
    const auto& [start, run] = *std::prev(behind);
    return start.first == fault.at.space && fault.at.address < run.end &&
           (run.is_writable || !fault.write);
  }

 private:
  struct Run {
    RemoteAddr end;
    bool is_writable;
  };
  bool remembers_ = false;
  std::map<std::pair<uint64_t, RemoteAddr>, Run> runs_;
};

}  // namespace krg
