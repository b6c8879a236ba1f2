// LeftOutMemory: what processes that execute on this node do not want to have in checkpoints
// (libkrg, cr_exclude_on()), as they have said before the last one. A process says it to the krgd
// where it has registered, which tells the node where it executes.
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/process_table.h"
#include "process_notes.h"

namespace krg {

class LeftOutMemory : public std::enable_shared_from_this<LeftOutMemory> {
 public:
  LeftOutMemory(NodeContext& node, ProcessTable& table) : node_(node), table_(table) {}
  void listen();

  // Replaces what was said of the process, wherever it executes. `told` runs when it is known
  // there. Errors: ESRCH, EHOSTDOWN.
  void tell(pid_t pid, const std::vector<PageRange>& ranges, std::function<void(Status)> told);
  // Of a process that executes here; empty: nothing.
  std::vector<PageRange> of(pid_t pid) const { return ranges_.of(pid); }

 private:
  NodeContext& node_;
  ProcessTable& table_;
  ProcessNotes<std::vector<PageRange>> ranges_;
};

}  // namespace krg
