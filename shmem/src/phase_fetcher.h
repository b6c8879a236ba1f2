// PhaseFetcher: when a thread of a program begins a phase again, the pages that it touched in that
// phase before are fetched together, and shown to it as they come, so that it need not wait for
// each of them in turn. It asks as a touch would, and nothing that comes is held: programs see the
// same memory as without it, only sooner.
//
// Threads: the loop's thread. Owned by the page set.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/kddm.h"
#include "multiple_writers.h"
#include "page_holder.h"
#include "phase_memory.h"
#include "program_spaces.h"

namespace krg {

class PhaseFetcher {
 public:
  struct Parts {
    EventLoop& loop;
    Kddm& kddm;
    SetId set;
    std::shared_ptr<PageHolder>& holder;
    ProgramSpaces& spaces;
    MultipleWriters& writers;
  };
  explicit PhaseFetcher(Parts parts) : parts_(parts) {}

  // Returns how many pages were asked for. `pages`: how many the set has.
  size_t begin(uint32_t thread, uint64_t phase, size_t pages);
  void on_fault(uint32_t thread, const PhaseMemory::Touch& touch) {
    if (memory_.is_used()) memory_.on_fault(thread, touch);
  }
  bool expects_write(uint32_t thread, PageIndex page) {
    return memory_.expects_write(thread, page);
  }
  // The page of `fault` is not all that is fetched for it.
  void on_fetched(const ProgramFault& fault, PageIndex page, bool write);
  // Pages have come that nobody waits for.
  void came(PageIndex first, size_t count);

 private:
  void ask(const std::vector<PhaseMemory::Touch>& touches);
  void show();

  const Parts parts_;
  PhaseMemory memory_;
  std::unordered_map<uint64_t, ProgramPage> expected_;  // where to show them, by page
  std::vector<PageIndex> here_;                         // of those, what is to be shown now
};

}  // namespace krg
