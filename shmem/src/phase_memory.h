// PhaseMemory: which pages each thread of a program touched in each phase of it (a parallel region
// up to its first barrier, from one barrier to the next), so that they can be fetched all at once
// when the thread begins that phase again. What is fetched so is touched without a fault, which
// nobody sees: therefore a page is left out now and then, and forgotten when no fault asks for it.
// Pure: no I/O, no clock. Threads: any, one at a time.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>
#include <vector>

#include "krg/shmem/ids.h"
#include "program_spaces.h"

namespace krg {

class PhaseMemory {
 public:
  // Pages of all phases together; when there are more, all are forgotten.
  static constexpr size_t kMostPages = 1u << 17;
  static constexpr unsigned kFirstTrust = 4, kMostTrust = 64;
  static constexpr unsigned kIdle = 32;      // times that it was here: nobody else uses it
  static constexpr unsigned kContested = 3;  // faults in one phase: others want it just then, too
  static constexpr unsigned kRest = 8;       // so often such a page is left alone

  struct Touch {
    ProgramPage at;
    PageIndex page;
    bool write;
  };

  // The thread begins the phase. Returns, by page, what it is going to touch and `is_lacking` says
  // that this node lacks.
  std::vector<Touch> begin(uint32_t thread, uint64_t phase,
                           const std::function<bool(PageIndex, bool write)>& is_lacking);
  // In the phase that it began last; before its first one nothing is kept.
  void on_fault(uint32_t thread, const Touch& touch);
  // At a fault to read: whether to ask for the page to write, since the thread wrote it in this
  // phase before. What was asked for so is written without a fault, which nobody sees: therefore it
  // is asked for to read now and then, and always once no fault to write has followed that.
  bool expects_write(uint32_t thread, PageIndex page);
  // A page that is fetched beside the one of a fault, because it is likely to come next.
  void on_fetched(uint32_t thread, const Touch& touch);
  // Whether any thread has begun a phase.
  bool is_used() const { return !current_.empty(); }

 private:
  struct Known {
    ProgramPage at;
    bool write = false;
    bool is_looked_at = false;  // left out this time
    uint8_t faults = 0;         // in this phase, this time
    uint8_t unseen = 0;         // times that it was fetched since the last fault
    uint8_t trust = kFirstTrust;
    uint8_t idle = 0;
    uint8_t rests = 0;
    uint8_t unproved = 0;  // times that it was asked for to write since the last fault to write
    uint8_t write_trust = 1;
    bool is_only_read = false;  // as far as was seen since it was asked for to read
  };
  using Pages = std::map<uint64_t, Known>;
  enum class Next : uint8_t { kFetch, kLeave, kForget };
  static Next next_of(Known& known, bool is_lacking);
  Pages* pages_of(uint32_t thread);

  std::map<std::pair<uint32_t, uint64_t>, Pages> phases_;
  std::map<uint32_t, uint64_t> current_;
  size_t count_ = 0;
};

}  // namespace krg
