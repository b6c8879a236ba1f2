// PidSweeps: makes programs that look at every process (ps, top, pgrep) cheap. Such a program lists
// /proc, then opens the same few files of one process after the other. The first such file of a
// node brings that file of all processes of the node in one message; the following opens are served
// from it, each text once, and only while it is fresh. A second look at the same file is always
// asked anew.
//
// Threads: the loop's thread. Owned by ProcPids.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "node_files.h"

namespace krg {

class PidSweeps {
 public:
  PidSweeps(EventLoop& loop, NodeFiles& files) : loop_(loop), files_(files) {}
  PidSweeps(const PidSweeps&) = delete;
  PidSweeps& operator=(const PidSweeps&) = delete;

  // Thread `tid` has listed /proc and was given these processes of other nodes.
  void begin(pid_t tid, const std::vector<ListedProcess>& processes);
  // What is known of `pid` since a moment ago because `tid` is on its way through the processes;
  // nullptr when it has to be asked for.
  const ListedProcess* find(pid_t tid, pid_t pid);
  // The file `name` of `pid`, which executes on `node`; nothing when it has to be read alone.
  void read(pid_t tid, FileUser user, NodeId node, pid_t pid, const std::string& name,
            std::function<void(std::optional<std::string>)> done);

 private:
  using Clock = std::chrono::steady_clock;
  struct Batch;
  struct Sweep {
    Clock::time_point begun, last_used;
    std::map<pid_t, ListedProcess> processes;
    std::map<NodeId, size_t> counts;  // processes a node
    std::map<std::pair<NodeId, std::string>, std::shared_ptr<Batch>> batches;
  };
  Sweep* recent(pid_t tid);
  std::shared_ptr<Batch> fetch(NodeId node, FileUser user, const std::string& name);
  void forget_old();

  EventLoop& loop_;
  NodeFiles& files_;
  std::unordered_map<pid_t, Sweep> sweeps_;
  EventLoop::Timer cleaning_;
};

}  // namespace krg
