// ContestedPages: which pages this node's programs write again and again after others have taken
// them, and where they touched them in the present phase (between two synchronisations of the whole
// program). If two nodes touch the same place in one phase, one of them to write, they talk by it
// (a flag, a lock, a counter); such a page has one writer at a time.
// Pure: no I/O, no clock. Threads: any, one at a time.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "krg/shmem/ids.h"

namespace krg {

class ContestedPages {
 public:
  static constexpr size_t kMostTouches = 32;        // remembered of a page; the last ones
  static constexpr size_t kMostPages = 1u << 17;    // when there are more, all are forgotten
  static constexpr unsigned kMostConflicts = 3;     // then it is settled
  static constexpr unsigned kClean = 2;             // so often two nodes have to write it
  static constexpr unsigned kCleanPerConflict = 4;  // more, after one was seen

  struct Touch {
    uint16_t byte = 0;  // of the page
    uint16_t write = 0;
    bool operator==(const Touch&) const = default;
  };
  using Touches = std::vector<Touch>;

  // What was touched before was touched in another phase.
  void begin_phase() { ++phase_; }
  uint64_t phase() const { return phase_; }
  // A fault that is not answered at once. Returns how often the page has been written anew here.
  unsigned on_fault(PageIndex page, uint64_t address, bool write);
  // What was touched in this phase, as far as faults told.
  Touches touched(PageIndex page) const;
  // Of two nodes: whether one of them is the same, and one of both a write.
  static bool conflict(const Touches& one, const Touches& other);
  static bool has_write(const Touches& touches);
  // Two nodes have touched the page in one phase. Returns whether it may have several writers from
  // now on. `is_beside`: a page beside it has.
  bool judge(PageIndex page, bool conflict, bool is_beside);
  // It is never to have several writers.
  void refuse(PageIndex page) { refused_.insert(page.value); }
  bool is_refused(PageIndex page) const { return refused_.contains(page.value); }
  void forget(PageIndex page) { pages_.erase(page.value); }

 private:
  struct Page {
    unsigned writes = 0, conflicts = 0, clean = 0;
    uint64_t phase = 0;
    Touches touched = {};
  };
  std::unordered_map<uint64_t, Page> pages_;
  std::unordered_set<uint64_t> refused_;
  uint64_t phase_ = 0;
};

}  // namespace krg
