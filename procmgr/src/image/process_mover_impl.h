// ProcessMover::Impl: what a ProcessMover keeps. process_mover.cpp holds processes and asks the
// target; leaving.cpp is what follows when the new body is the process. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>

#include "exec_messages.h"
#include "image/content_ranges.h"
#include "image/frozen_shadow.h"
#include "image/known_mappings.h"
#include "image/large_fork.h"
#include "image/moved_process.h"
#include "image/wait_times.h"
#include "krg/procmgr/process_mover.h"

namespace krg {

struct ProcessMover::Impl : std::enable_shared_from_this<Impl> {
  struct Move {
    std::shared_ptr<ProcessTable::Claim> claim;
    std::shared_ptr<FrozenProcess> process;
    WhichFds which;
    pid_t pid;
    NodeId target;
    std::function<void(Status)> done;
    // As they were before it stood still.
    MappingTexts mappings = {};
    WaitTimes waits = {};
    bool may_interrupt = true;  // a wait that nobody knows any more
    // Of a child that was made without the forker's large memory.
    std::shared_ptr<LargeFork> fork = {};
    bool may_run = false;  // elsewhere: the order has been given
    MovedProcess moved = {};
    std::vector<ExportedFd> fds = {};
    std::vector<NodeId> children_on = {};
    // Of the pages that come later.
    pid_t page_source = 0;
    uint64_t page_move = 0;
    Status served = {};
    // Of one that is native here.
    std::unique_ptr<FrozenShadow> shadow = {};
    Status has_shadow = {};
    // Those that wait for it, and go along in its image.
    std::vector<ImageSignal> signals = {};
    // Taken from it when it left a guardian: those, and what came after the image was taken.
    std::vector<ImageSignal> late_signals = {};
  };
  using MovePtr = std::shared_ptr<Move>;
  // One that is to move as soon as it can.
  struct Going {
    std::shared_ptr<ProcessTable::Claim> claim;
    pid_t pid = 0;
    NodeId target;
    std::function<void(Status)> done;
    int tried = 0;
  };

  NodeContext& node;
  ExecPlacer::Parts parts;
  size_t moving = 0;
  // The mappings of processes that fork, as they were at the last one.
  struct Forker {
    uint64_t start_time = 0;
    MappingTexts mappings;
  };
  std::map<pid_t, Forker> forkers;

  Impl(NodeContext& n, const ExecPlacer::Parts& p) : node(n), parts(p) {}

  Status capture(Move& move);
  static Status check_children(const ProcessTable::Body& body, NodeId target);
  Status settle_children(Move& move);
  Status name_shared_memory(ProcessImage& image) const;
  Status read_contents(Move& move);
  Status serve_late_pages(Move& move, std::vector<PageRange> pages);
  void copy_late_pages(const MovePtr& move, const std::vector<PageRange>& pages);
  Status serve_task(Move& move, pid_t task, std::vector<PageRange> pages);
  void end_page_source(pid_t task);
  void abandon_late_pages(Move& move);
  void prepare_shadow(Move& move);
  void export_descriptors(MovePtr move);
  Result<exec_messages::StartBody> describe(const Move& move);
  void ask_target(MovePtr move);
  void on_target_answer(const MovePtr& move, const Result<std::string>& reply);
  void leave_shadow(MovePtr move);
  void leave_origin(MovePtr move);
  Status leave_guardian(Move& move);
  static bool holds_locks(const Move& move);
  Status settle_locks(Move& move);
  void end_here(Move& move);
  void pass_on(const Move& move, std::vector<ImageSignal> signals);
  void thaw_body(Move& move);
  void drop_body(const Move& move);
  void end(Move& move, Status how);
  void when_complete(pid_t pid, std::function<void()> done);
  void release_guardians(pid_t pid, std::vector<NodeId> nodes, std::function<void()> done);
  void release_and_freeze(const Going& going);
  void read_and_freeze(const Going& going, std::function<void(Status)> done);
  void freeze(const Going& going, MappingTexts mappings, WaitTimes waits,
              std::function<void(Status)> done);
  Forker& forker(pid_t pid);
  Forker& forker_of(pid_t child);
  void begin(Move move);
  void clone(FrozenProcess& original, NodeId target, std::function<void(Result<pid_t>)> done);
};

}  // namespace krg
