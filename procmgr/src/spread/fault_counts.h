// FaultCounts: what the threads of a spread process waited for on one node (krgrun --stats): faults
// by page and by thread, waits for barriers and futexes by thread. Home adds up those of all nodes.
// Pure. Threads: the loop's thread. Owned by who counts.
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

  void add_fault(pid_t thread, const PageFault& fault);
  void begin_wait(pid_t thread);
  void end_futex_wait(pid_t thread);
  void end_team_call(pid_t thread);

  const std::map<uint64_t, Page>& pages() const { return pages_; }  // by address
  const std::map<pid_t, Thread>& threads() const { return threads_; }

  // Error: EBADMSG.
  static Result<FaultCounts> parse(std::string_view bytes);
  std::string serialize() const;

 private:
  using Clock = std::chrono::steady_clock;
  uint64_t waited(pid_t thread);

  std::map<uint64_t, Page> pages_;
  std::map<pid_t, Thread> threads_;
  std::map<pid_t, Clock::time_point> waiting_;
};

}  // namespace krg
