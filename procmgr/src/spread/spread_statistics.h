// SpreadStatistics: why a spread process is no faster (krgrun --stats): what its threads waited for
// on all nodes, in its programmer's words. Owned by its SpreadProcess, then by Spreading until the
// nodes with replicas have told their counts. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "krg/runtime/types.h"
#include "krg/shmem/page_set.h"
#include "spread/fault_counts.h"
#include "spread/memory_names.h"

namespace krg {

struct SpreadStatistics {
  pid_t pid = 0;
  std::string job;  // who asked for them
  std::string command;
  MemoryNames names;
  std::map<NodeId, FaultCounts> counts;
  std::optional<MultipleWritersStatistics> multiple_writers;  // at home, where they are allowed

  // Of a process whose environment has KRG_STATS=JOB.
  static std::optional<SpreadStatistics> wanted_by(pid_t pid);

  // {"pid", "command", "threads": [{"tid", "faults", "fault_ms", "team_calls", "team_ms",
  // "futexes", "futex_ms"}], "parallel": [{"region", "barrier",
  // "begun", "faults", "fault_ms", "team_calls", "team_ms"}], "regions": [{"name", "pages",
  // "read_faults", "write_faults", "bytes", "invalidations", "ping_pong", "wait_ms"}],
  // "multiple_writers": {"pages", "ended", "changed_pages", "bytes"} (what its home counted, where
  // --multiple-writers was given), "false_sharing": [{"page", "invalidations", "writers": [{"node",
  // "words"}], "text"}]}. Parallel regions are those of libkrgomp, in parts (FaultCounts::Part),
  // what waited most first; a place is {"name", "file", "address"}, the latter two for
  // addr2line(1). A region that the program allocated, and such a page, has "site", {"file",
  // "addresses"}: behind which of its calls, the innermost first. Regions of memory come by
  // wait_ms, false sharing by invalidations, the most first.
  nlohmann::json report();
};

}  // namespace krg
