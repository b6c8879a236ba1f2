// PageSource: S's end of one move (krg/procmgr/page_moves.h): reads the pages of a stopped task and
// sends them, each once: those that T's process waits for at once, with what follows them; the
// others into the slots of T's region, as many at a time as T has free. While faults come, only one
// slot is under way at a time, so that answers do not stand in line behind it.
//
// Threads: the loop's thread, with workers that read. Owned by PageMoves (shared: transfers under
// way hold it and its buffers). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "page_list.h"
#include "page_messages.h"
#include "task_memory.h"

namespace krg {

class PageSource : public std::enable_shared_from_this<PageSource> {
 public:
  // Called once each, from the loop: when the task is not needed any more; when no transfer is
  // under way any more either.
  struct Handlers {
    std::function<void(Status)> ended;
    std::function<void()> drained;
  };
  static Result<std::shared_ptr<PageSource>> create(NodeContext& node, uint64_t move, NodeId target,
                                                    pid_t task, std::vector<PageRange> ranges,
                                                    bool aside, Handlers handlers);

  NodeId target() const { return target_; }

  void on_wanted(const PagesWanted& wanted);
  void on_demand(uint64_t page);
  void on_slot_free(uint32_t slot);
  void on_end(const PagesEnd& end, Messenger::Reply reply);
  void target_failed();
  // Nothing more comes, and `ended` is not called any more.
  void abandon();

 private:
  struct Batch {
    std::vector<PageRun> runs;
    size_t bytes = 0;
  };

  // What is to be read for one.
  struct Plan {
    std::vector<MemoryPiece> pieces;
    std::vector<PageRun> runs;
    size_t bytes = 0;
  };

  PageSource(NodeContext& node, uint64_t move, NodeId target, TaskMemory memory,
             std::vector<PageRange> ranges, bool aside, Handlers handlers);
  void lose(int error);
  void put_failed(const Error& error);
  void rest();
  void push();
  void fill_slot(uint32_t slot);
  void send_slot(uint32_t slot, std::span<std::byte> buffer, Result<Batch> batch);
  bool send_inline(uint64_t first, uint64_t most_pages);
  Plan take(uint64_t first, size_t most_bytes);
  // Threads: any.
  static Result<Batch> read(const TaskMemory& memory, const Plan& plan, std::span<std::byte> into);
  void announce(uint32_t slot, const Batch& batch, std::span<const std::byte> bytes);
  void end(Status outcome);
  void drain();

  NodeContext& node_;
  const uint64_t move_;
  const NodeId target_;
  TaskMemory memory_;
  const PageList pages_;
  const bool aside_;  // workers read
  Handlers handlers_;
  bool has_ended_ = false, will_push_ = false;
  PageBits unsent_;
  uint64_t next_ = 0;                       // where the background goes on
  uint64_t answered_up_to_ = ~uint64_t{0};  // the last fault, with what came along
  uint64_t read_ahead_ = 0;
  RemoteRegion region_;
  std::unique_ptr<std::byte[]> buffer_;  // as many slots as T has
  size_t batch_bytes_ = kPageSlotBytes;  // of the next slot
  std::vector<uint32_t> free_slots_;
  unsigned slots_ = 0, filling_ = 0;  // being read or put
  EventLoop::Timer rest_;             // while faults come
  std::optional<Messenger::Reply> end_reply_;
  EventLoop::Watch exit_;
};

}  // namespace krg
