// GrantedFaults: faults whose pages have come. They are shown together at the end of a turn of the
// loop, each with those beside it that are here with the same rights, once this node knows what was
// written before (MultipleWriters::acquire).
//
// Threads: the page set's. Owned by it.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/shmem/page_set.h"
#include "multiple_writers.h"
#include "page_holder.h"
#include "program_spaces.h"
#include "woken_runs.h"
#include "working_sets.h"

namespace krg {

class GrantedFaults {
 public:
  struct Parts {
    EventLoop& loop;
    std::shared_ptr<PageHolder>& holder;
    ProgramSpaces& spaces;
    MultipleWriters& writers;
    WorkingSets& working_sets;
    PageSetStatistics& statistics;
    const size_t& pages;  // of the set, at the moment
    unsigned most_around;
    // Whether it could be shown: the page may have left again, and is asked for then.
    std::function<bool(const ProgramFault&)> show_or_ask;
    std::function<void(const ProgramFault&)> told;  // it has been served
  };
  explicit GrantedFaults(Parts parts) : parts_(std::move(parts)) {}

  void add(const ProgramFault& fault);
  // Maps the page of a fault (or lets it be written), and those beside it that are here with the
  // same rights.
  void show(const ProgramFault& fault);
  // Who waits to write a page that it could read has to be shown all of it now.
  void released(PageIndex first, size_t count);

 private:
  void show_soon();
  void show_all();

  const Parts parts_;
  std::vector<ProgramFault> granted_;
  std::vector<ProgramFault> next_;  // of those, what is shown when others' writes are known
  WokenRuns woken_;
};

}  // namespace krg
