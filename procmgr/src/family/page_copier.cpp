// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/page_copier.h"

#include <atomic>
#include <thread>
#include <utility>

#include "idle_processor.h"
#include "image/task_memory.h"

namespace krg {
namespace {

constexpr uint64_t kLeastForTwo = 2u << 20;  // less is copied before a thread has begun
// What one thread copies before it looks how far the other is.
constexpr uint64_t kChunkBytes = 256u << 10;

// Ranges that follow each other, and where their contents go.
struct Chunk {
  std::vector<MemoryPiece> pieces;
  uint64_t offset = 0, bytes = 0;
  size_t first = 0;  // the first range
};

std::vector<Chunk> divide(const std::vector<PageRange>& ranges) {
  std::vector<Chunk> chunks;
  uint64_t offset = 0;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (chunks.empty() || chunks.back().bytes + ranges[i].bytes > kChunkBytes)
      chunks.push_back({.pieces = {}, .offset = offset, .first = i});
    chunks.back().pieces.push_back({ranges[i].start, ranges[i].bytes});
    chunks.back().bytes += ranges[i].bytes;
    offset += ranges[i].bytes;
  }
  return chunks;
}

Status copy(const TaskMemory& memory, const Chunk& chunk, std::byte* into) {
  return memory.read(chunk.pieces, {into + chunk.offset, chunk.bytes});
}

// Goes from the last chunk to the first; stops where it fails, which the other meets, too.
class Helper {
 public:
  Helper(TaskMemory memory, std::shared_ptr<const std::vector<Chunk>> chunks, std::byte* into)
      : chunks_(std::move(chunks)),
        first_done_(chunks_->size()),
        thread_([this, memory = std::move(memory), into](const std::stop_token& end) {
          for (size_t i = chunks_->size(); i > 0 && !end.stop_requested(); --i) {
            if (!copy(memory, (*chunks_)[i - 1], into)) return;
            first_done_.store(i - 1, std::memory_order_release);
          }
        }) {}
  // It has copied this chunk and those behind it.
  size_t first_done() const { return first_done_.load(std::memory_order_acquire); }
  void stop() { thread_.request_stop(); }

 private:
  const std::shared_ptr<const std::vector<Chunk>> chunks_;
  std::atomic<size_t> first_done_;
  std::jthread thread_;
};

}  // namespace

Result<CopiedPages> copy_pages(pid_t task, std::vector<PageRange> ranges, Help help) {
  auto memory = TaskMemory::open(task);
  if (!memory) return memory.error();
  const auto chunks = std::make_shared<const std::vector<Chunk>>(divide(ranges));
  CopiedPages copied;
  for (const Chunk& chunk : *chunks)
    for (uint64_t at = chunk.offset; const MemoryPiece& piece : chunk.pieces)
      copied.offsets.push_back(std::exchange(at, at + piece.bytes));
  copied.ranges = std::move(ranges);
  const uint64_t bytes = chunks->empty() ? 0 : chunks->back().offset + chunks->back().bytes;
  // Each thread has a half for all: what the helper is still writing when all is there is not used.
  const bool has_helper = bytes >= kLeastForTwo && (help == Help::kAlways || has_idle_processor());
  auto buffer = PageBuffer::make_unclear(has_helper ? 2 * bytes : bytes);
  if (!buffer) return buffer.error();
  copied.bytes = std::move(*buffer);
  std::shared_ptr<Helper> helper;
  if (auto its = has_helper ? TaskMemory::open(task) : errno_error("", ENOTSUP); its)
    helper = std::make_shared<Helper>(std::move(*its), chunks, copied.bytes.get() + bytes);
  size_t next = 0;
  for (; next < (helper ? helper->first_done() : chunks->size()); ++next)
    if (auto done = copy(*memory, (*chunks)[next], copied.bytes.get()); !done) return done.error();
  if (!helper) return copied;
  helper->stop();
  if (next < chunks->size())
    for (size_t i = (*chunks)[next].first; i < copied.offsets.size(); ++i)
      copied.offsets[i] += bytes;
  copied.writer = std::move(helper);
  return copied;
}

}  // namespace krg
