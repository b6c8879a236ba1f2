// FaultCounts: what the threads of a spread process waited for on one node (krgrun --stats): faults
// by page, by thread and by parallel region, waits for barriers and futexes by thread. Home adds up
// those of all nodes. Pure. Threads: the loop's thread. Owned by who counts.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "krg/runtime/result.h"
#include "krg/shmem/page_set.h"

namespace krg {

class FaultCounts {
 public:
  // Words of 8 bytes of a page that were written when the page had to be waited for; more are not
  // kept.
  static constexpr size_t kMostWords = 64;
  // Pages that are told apart; what comes later counts for its thread only.
  static constexpr size_t kMostPages = 1u << 18;

  struct Page {
    uint64_t reads = 0, writes = 0;  // faults
    uint64_t fetched = 0;            // that brought the page from another node
    uint64_t taken = 0;              // that found it taken away since
    uint64_t waited_ns = 0;
    std::set<uint16_t> written = {};  // words
  };
  struct Thread {
    uint64_t faults = 0, fault_ns = 0;
    uint64_t barriers = 0, barrier_ns = 0;  // team calls: barriers, locks, chunks of libkrgomp
    uint64_t futexes = 0, futex_ns = 0;
  };

  // A part of a parallel region: behind one of its barriers, or before them all.
  struct Part {
    uint64_t region = 0;   // its outlined function; 0: outside of all
    uint64_t barrier = 0;  // where the program comes from; 0: none
    auto operator<=>(const Part&) const = default;
  };
  struct Region {
    uint64_t begun = 0;  // by any thread
    uint64_t faults = 0, fault_ns = 0;
    uint64_t team_calls = 0, team_ns = 0;
  };

  // The thread is there from now on.
  void enter(pid_t thread, Part part);
  void begin(pid_t thread, Part part);  // and is counted
  void add_fault(pid_t thread, const PageFault& fault);
  void begin_wait(pid_t thread);
  void end_futex_wait(pid_t thread);
  void end_team_call(pid_t thread);

  const std::map<uint64_t, Page>& pages() const { return pages_; }  // by address
  const std::map<pid_t, Thread>& threads() const { return threads_; }

  const std::map<Part, Region>& regions() const { return regions_; }

  // Error: EBADMSG.
  static Result<FaultCounts> parse(std::string_view bytes);
  std::string serialize() const;

 private:
  using Clock = std::chrono::steady_clock;
  uint64_t waited(pid_t thread);

  std::map<uint64_t, Page> pages_;
  std::map<pid_t, Thread> threads_;
  std::map<Part, Region> regions_;
  std::map<pid_t, Part> in_;
  std::map<pid_t, Clock::time_point> waiting_;
};

}  // namespace krg
