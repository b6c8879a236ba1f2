// Checkpoints: krgd's part in checkpoints and restarts: takes the commands, has families captured
// and written, and makes them processes again.
//
// Commands (arguments -> result):
//   checkpoint {pid | job, folder, description, compress, keep, signal, full, files} -> {version,
//     processes, memory_bytes, page_bytes, stored_bytes, pause_us, write_us}   pid: its application
//     is meant; signal: sent to all of it once the version is there; full: not only what was
//     written since the version before; files: contents of files that are open for writing, too
//     action: "freeze" {pid | job}: it stands until "unfreeze" {pid | job, signal}, which a signal
//     to its root may follow; it can be saved meanwhile
//   checkpoint.applications {} -> {pids}     roots of applications, of all nodes
//   restart.open {folder, version, job, files, lazy} -> {version, pid, program, first_slot, files,
//   mapped, loads_first}
//     from krgrun, whose connection the restart belongs to: the root is to be made by it; files:
//     those that were saved get their contents back; lazy: processes run before all of their pages
//     are loaded (loads_first: why not)
//   restart.files {job, from} -> {slots} + descriptors   from the root before its exec, till none
//   restart.hold {job} -> {}                 from the root just before it execs
// Notices to krgrun: restarted {version}; restart_failed {reason}; of lazy ones then loaded {} or
// restart_lost {reason}: it could not be read, all have been killed; to who asks for it, progress.
//
// An application is the tree of the topmost process above `pid` that has the capability
// CHECKPOINTABLE effective, each on the way having it, too, on whatever nodes they execute. The
// node of its root carries the command out; each node writes its part.
//
// Threads: the loop's thread; files in a worker. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "krg/procmgr/body_descriptors.h"
#include "krg/procmgr/family_capture.h"
#include "krg/procmgr/shadow_host.h"
#include "krg/runtime/control_server.h"

namespace krg {

class Checkpoints {
 public:
  struct Parts {
    FamilyCaptureParts capture;
    ControlServer& control;
    // The first processes of a job that krgrun began here.
    std::function<std::vector<pid_t>(uint32_t job)> tasks_of;
    // What is started from now on gets pids above this one.
    std::function<void(pid_t)> start_pids_after;
    ShadowHost& shadows;
    std::function<bool(NodeId)> is_online;
    // Makes descriptors of processes to be had on other nodes.
    std::function<BodyDescriptors&()> body_descriptors;
  };

  explicit Checkpoints(Parts parts);
  ~Checkpoints();
  Checkpoints(const Checkpoints&) = delete;
  Checkpoints& operator=(const Checkpoints&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
