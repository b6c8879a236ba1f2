// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/fault_counts.h"

#include "packed_bytes.h"

namespace krg {
namespace {

constexpr uint64_t kWordBytes = 8;

}  // namespace

void FaultCounts::enter(pid_t thread, Part part) {
  in_[thread] = part;
}

void FaultCounts::begin(pid_t thread, Part part) {
  enter(thread, part);
  ++regions_[part].begun;
}

void FaultCounts::add_fault(pid_t thread, const PageFault& fault) {
  const auto waited = static_cast<uint64_t>(fault.waited.count());
  if (auto in = in_.find(thread); in != in_.end()) {
    Region& region = regions_[in->second];
    ++region.faults;
    region.fault_ns += waited;
  }
  Thread& own = threads_[thread];
  ++own.faults;
  own.fault_ns += waited;
  const uint64_t in_page = fault.address.value % kPageBytes;
  const uint64_t address = fault.address.value - in_page;
  if (pages_.size() >= kMostPages && !pages_.contains(address)) return;
  Page& page = pages_[address];
  const bool was_known = page.reads + page.writes > 0;
  ++(fault.write ? page.writes : page.reads);
  if (!fault.was_here && !fault.was_mapped) ++page.fetched;
  if (!fault.was_here && !fault.was_mapped && was_known) ++page.taken;
  page.waited_ns += waited;
  if (fault.write && page.written.size() < kMostWords)
    page.written.insert(static_cast<uint16_t>(in_page / kWordBytes));
}

void FaultCounts::begin_wait(pid_t thread) {
  waiting_[thread] = Clock::now();
}

uint64_t FaultCounts::waited(pid_t thread) {
  auto since = waiting_.extract(thread);
  if (since.empty()) return 0;
  return static_cast<uint64_t>(std::chrono::nanoseconds(Clock::now() - since.mapped()).count());
}

void FaultCounts::end_futex_wait(pid_t thread) {
  if (!waiting_.contains(thread)) return;
  Thread& own = threads_[thread];
  ++own.futexes;
  own.futex_ns += waited(thread);
}

void FaultCounts::end_team_call(pid_t thread) {
  if (!waiting_.contains(thread)) return;
  const uint64_t ns = waited(thread);
  Thread& own = threads_[thread];
  ++own.barriers;
  own.barrier_ns += ns;
  Region& region = regions_[in_[thread]];
  ++region.team_calls;
  region.team_ns += ns;
}

Result<FaultCounts> FaultCounts::parse(std::string_view bytes) {
  PackedReader in(bytes);
  FaultCounts counts;
  for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) {
    Page& page = counts.pages_[in.get<uint64_t>()];
    page.reads = in.get<uint64_t>();
    page.writes = in.get<uint64_t>();
    page.fetched = in.get<uint64_t>();
    page.taken = in.get<uint64_t>();
    page.waited_ns = in.get<uint64_t>();
    for (auto words = in.get<uint32_t>(); words > 0 && in.ok(); --words)
      page.written.insert(in.get<uint16_t>());
  }
  for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) {
    const auto tid = in.get<pid_t>();
    counts.threads_[tid] = in.get<Thread>();
  }
  for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) {
    const auto part = in.get<Part>();
    counts.regions_[part] = in.get<Region>();
  }
  if (!in.ok() || !in.at_end()) return errno_error("counts of faults", EBADMSG);
  return counts;
}

std::string FaultCounts::serialize() const {
  PackedWriter out;
  out.put(static_cast<uint32_t>(pages_.size()));
  for (const auto& [address, page] : pages_) {
    out.put(address).put(page.reads).put(page.writes).put(page.fetched).put(page.taken);
    out.put(page.waited_ns).put(static_cast<uint32_t>(page.written.size()));
    for (uint16_t word : page.written) out.put(word);
  }
  out.put(static_cast<uint32_t>(threads_.size()));
  for (const auto& [tid, thread] : threads_) out.put(tid).put(thread);
  out.put(static_cast<uint32_t>(regions_.size()));
  for (const auto& [part, region] : regions_) out.put(part).put(region);
  return out.take();
}

}  // namespace krg
