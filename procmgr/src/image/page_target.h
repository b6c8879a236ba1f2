// PageTarget: T's end of one move (krg/procmgr/page_moves.h). Pages that must be there before the
// process runs are written into it; the others are put in by its userfaultfd as they come or are
// touched.
//
//   filling   until the pages are there that must be before it runs
//   running   until no address space awaits a page any more
//   ended     S is told; the region stays until S says that nothing is under way to it
//
// Threads: the loop's thread. Owned by PageMoves (shared: it lives until S has answered).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "krg/procmgr/page_moves.h"
#include "krg/runtime/transport.h"
#include "page_list.h"
#include "page_messages.h"
#include "page_spaces.h"
#include "task_memory.h"

namespace krg {

class PageTarget : public std::enable_shared_from_this<PageTarget> {
 public:
  // `ended` is called once, from the loop.
  PageTarget(NodeContext& node, PageMoves::Arrival arrival, bool aside,
             std::function<void()> ended);

  void start();
  // S is asked for all of it; once.
  void begin();
  void on_chunk(const PageChunk& chunk, std::string_view payload);
  // S has no more.
  void on_lost(int error);
  // Whether it is this process, and runs while its pages are to come.
  bool is_running(pid_t pid) const { return pid == pid_ && state_ == State::kRunning; }
  // As PageMoves says.
  bool awaits(pid_t pid, RemoteAddr address, uint64_t bytes);
  void when_here(pid_t pid, RemoteAddr address, uint64_t bytes, std::function<void()> done);

 private:
  enum class State { kFilling, kRunning, kEnded };
  // Who has asked for memory.
  struct Waiter {
    pid_t pid;
    RemoteAddr address;
    uint64_t bytes;
    std::function<void()> done;
  };

  Status ask();
  void begin_supply();
  Status take_supplied(std::span<const PageRange> ranges, std::span<const std::byte> contents);
  Status prepare(UniqueFd userfaultfd);
  Status watch_process();
  Status make_slots();
  uint32_t slot_count() const { return slots_in(slots_.size()); }
  struct Run {
    PageRun pages;
    const std::byte* bytes;
  };
  Result<std::vector<Run>> runs_of(std::string_view payload, uint32_t count,
                                   std::span<const std::byte> slot) const;
  bool may_put_aside(const std::vector<Run>& runs) const;
  void put_aside(const std::vector<Run>& runs, uint32_t slot);
  void on_put(const Status& put, uint32_t slot);
  Status put(const PageRun& run, const std::byte* bytes);
  Status write_early(uint64_t first, uint64_t count, const std::byte* bytes);
  void demand(const std::vector<uint64_t>& faults);
  void process_ended();
  void advance();
  void tell_waiters();
  void tell_source(const Status& outcome);
  void lose(const Error& why);
  void kill_process();
  void end(Status outcome);

  NodeContext& node_;
  const NodeId source_;
  const uint64_t move_;
  std::unique_ptr<PageSupply> supply_;  // in S's place; null: S is a node
  const pid_t pid_;
  const PageList pages_;
  const bool aside_;            // workers put in
  const uint64_t first_later_;  // pages below it are written before the process runs
  std::function<void(Status)> may_run_, all_here_;
  std::function<void()> ended_;
  State state_ = State::kFilling;
  UniqueFd userfaultfd_;  // until start()
  const bool waits_for_begin_;
  bool has_begun_ = false;

  std::optional<TaskMemory> process_;
  PageBits early_;     // to be written before the process runs
  PageBits demanded_;  // S has been asked
  PageSpaces spaces_;
  std::vector<Waiter> waiters_;
  std::unique_ptr<std::byte[]> slot_memory_;
  std::span<std::byte> slots_;
  std::unique_ptr<MemoryRegion> region_;
  EventLoop::Watch exit_;
};

}  // namespace krg
