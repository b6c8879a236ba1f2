// ExecPlacer: placement at exec (docs/ARCHITECTURE.md). On the origin it takes each stopped execve
// of a process that has just been forked by one with DISTANT_FORK, and, when placement says another
// node, starts the program there and turns the caller into its shadow. On the target it hosts the
// bodies. Whatever cannot be taken along stays: the exec goes on natively.
//
// Threads: the loop's thread. Owned by krgd's main. procmgr/README.md has the states of a placed
// process.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/resource.h>

#include <functional>
#include <memory>

#include "krg/procmgr/body_descriptors.h"
#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/known_forkers.h"
#include "krg/procmgr/page_moves.h"
#include "krg/procmgr/placement.h"
#include "krg/procmgr/shadow_host.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/procmgr/sleep_book.h"

namespace krg {

// More placements than this under way at once: further execs go on natively.
inline constexpr size_t kMaxPlacing = 256;

class ExecPlacer {
 public:
  // All outlive the placer.
  struct Parts {
    SyscallBroker& broker;
    ProcessTable& table;
    ShadowHost& shadows;
    CapabilityTable& capabilities;
    KnownForkers& forkers;
    Placement& placement;
    BodyDescriptors& descriptors;
    // Adds to the usage of an ended body what the kernel here could not count; may be empty.
    std::function<void(pid_t body, rusage& usage)> add_usage = {};
    // Whether this node takes bodies now; empty: always. Those refused start on their origin.
    std::function<bool()> takes_bodies = {};
    // Told when a process that a program forked is about to exec for the first time; may be empty.
    std::function<void(const KnownForkers::Program&)> on_first_exec = {};
    // How the memory of processes that move comes; null: only small ones move.
    PageMoves* pages = nullptr;
    // Null: processes that share memory with other nodes do not move.
    SharedMemory* shared = nullptr;
    // Null: a process that moves twice sleeps anew.
    SleepBook* sleeps = nullptr;
  };

  // Takes the broker's execve. REQUIRES: node.children.
  ExecPlacer(NodeContext& node, Parts parts);
  ~ExecPlacer();
  ExecPlacer(const ExecPlacer&) = delete;
  ExecPlacer& operator=(const ExecPlacer&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // shared with placements under way
};

}  // namespace krg
