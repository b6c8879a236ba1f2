// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/memory_copies.h"

#include <memory>
#include <utility>

#include "image/page_list.h"
#include "process_spec.h"

namespace krg {
namespace {

struct Job {
  SharedMemory& memory;
  std::vector<MemoryShare> shares;
  std::function<void(Result<MemoryCopies>)> done;
  MemoryCopies copies = {};
  FoundPages found = {};  // of shares[next]
  size_t next = 0;
  uint64_t total = 0;
};

void copy_next(const std::shared_ptr<Job>& job);

void on_page(Job& job, uint64_t page, std::span<const std::byte> bytes) {
  if (job.total > kMostSharedBytes || is_zero_page(bytes.data())) return;
  job.found.add(page * bytes.size(), bytes.data());
  job.total += bytes.size();
}

void on_visited(const std::shared_ptr<Job>& job, const Status& visited) {
  if (!visited) return job->done(visited.error());
  if (job->total > kMostSharedBytes) return job->done(cannot_move("much memory that nodes share"));
  auto copied = std::exchange(job->found, {}).copy();
  if (!copied) return job->done(copied.error());
  job->copies[job->shares[job->next].owner] = std::move(*copied);
  ++job->next;
  copy_next(job);
}

void copy_next(const std::shared_ptr<Job>& job) {
  if (job->next == job->shares.size()) return job->done(std::move(job->copies));
  const MemoryShare& share = job->shares[job->next];
  job->memory.visit(
      share.file, share.first, share.count,
      [job](uint64_t page, std::span<const std::byte> bytes) { on_page(*job, page, bytes); },
      [job](const Status& visited) { on_visited(job, visited); });
}

}  // namespace

void copy_memories(SharedMemory& memory, std::vector<MemoryShare> shares,
                   std::function<void(Result<MemoryCopies>)> done) {
  copy_next(std::make_shared<Job>(Job{memory, std::move(shares), std::move(done)}));
}

}  // namespace krg
