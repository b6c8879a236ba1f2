// ContestedPages: which pages this node's programs write again and again after others have taken
// them, and which words of them they touched in the present phase (between two synchronisations of
// the whole program). If two nodes touch the same word in one phase, one of them to write, the word
// is what they talk by (a flag, a lock, a counter); such a page has one writer at a time.
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
  // So often a page has to be written anew before it counts as contested here.
  static constexpr unsigned kContested = 3;
  static constexpr size_t kMostWords = 32;        // remembered of a page; the last ones
  static constexpr size_t kMostPages = 1u << 17;  // when there are more, all are forgotten
  static constexpr unsigned kMostConflicts = 2;   // then it is settled

  struct Touch {
    uint16_t word = 0;  // of 4 bytes
    uint16_t write = 0;
    bool operator==(const Touch&) const = default;
  };

  // What was touched before was touched in another phase.
  void begin_phase() { ++phase_; }
  // A fault that another node had to be asked for. Returns how often the page has been written
  // anew.
  unsigned on_fault(PageIndex page, uint64_t address, bool write);
  unsigned written_anew(PageIndex page) const;
  // What was touched in this phase, as far as faults told.
  std::vector<Touch> touched(PageIndex page) const;
  // Whether one of them is the same word, and one of both a write.
  static bool conflict(const std::vector<Touch>& one, const std::vector<Touch>& other);
  // A conflict was seen. Returns whether the page is refused from now on.
  bool add_conflict(PageIndex page);
  // It is never to have several writers.
  void refuse(PageIndex page);
  bool is_refused(PageIndex page) const { return refused_.contains(page.value); }
  void forget(PageIndex page) { pages_.erase(page.value); }

 private:
  struct Page {
    unsigned writes = 0;
    unsigned conflicts = 0;
    uint64_t phase = 0;
    std::vector<Touch> touched;
  };
  std::unordered_map<uint64_t, Page> pages_;
  std::unordered_set<uint64_t> refused_;
  uint64_t phase_ = 0;
};

}  // namespace krg
