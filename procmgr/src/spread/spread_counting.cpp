// SpreadProcess: what its faults here say: for krgrun --stats, and about where threads belong.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "spread/spread_process.h"
#include "spread/spread_statistics.h"

namespace krg {

void SpreadProcess::watch_faults() {
  parts_.pages->on_fault([statistics = parts_.statistics, signs = signs_,
                          self = parts_.node.self](const PageFault& fault) {
    signs->add(fault, FaultSigns::Clock::now());
    if (statistics) statistics->counts[self].add_fault(fault.thread, fault);
  });
}

FaultCounts* SpreadProcess::counts() {
  return parts_.statistics ? &parts_.statistics->counts[parts_.node.self] : nullptr;
}

// A worker that waits for a region is in none.
void SpreadProcess::count_team_call(const ThreadPtr& thread, const TeamWords& asked) {
  if (!counts()) return;
  if (static_cast<TeamOp>(asked[0]) == TeamOp::dock) counts()->enter(thread->traced->tid(), {});
  counts()->begin_wait(thread->traced->tid());
}

void SpreadProcess::count_phase(const ThreadPtr& thread) {
  if (counts())
    counts()->begin(thread->traced->tid(), {thread->phase.region(), thread->phase.site()});
}

void SpreadProcess::name_memory(RemoteAddr start, uint64_t bytes, const std::string& name) {
  if (parts_.statistics) parts_.statistics->names.add(start, bytes, name);
}

// Of a thread before its first instruction.
void SpreadProcess::name_stack(const ThreadPtr& thread) {
  auto registers = parts_.statistics ? thread->traced->registers() : errno_error("", ENOENT);
  if (!registers) return;
  if (auto range = parts_.memory.find(RemoteAddr{registers->rsp - 1}))
    name_memory(range->start, range->bytes,
                fmt::format("stack of thread {}", thread->traced->tid()));
}

}  // namespace krg
