// Applications: which processes make up one: the tree of the topmost process that has
// CHECKPOINTABLE effective, each on the way to it having it, too, over the nodes. Orphans belong to
// the first process of their job, where the job has one such.
//
// Threads: the loop's thread. Owned by Checkpoints. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "checkpoint_messages.h"
#include "krg/procmgr/family_capture.h"

namespace krg {

class Applications : public std::enable_shared_from_this<Applications> {
 public:
  using Application = checkpoint_messages::Application;
  using Done = std::function<void(Result<Application>)>;

  // `tasks_of`: Checkpoints::Parts'.
  Applications(NodeContext& node, ProcessTable& table, CapabilityTable& capabilities,
               std::function<std::vector<pid_t>(uint32_t job)> tasks_of)
      : node_(node), table_(table), capabilities_(capabilities), tasks_of_(std::move(tasks_of)) {}
  void listen();

  // That of `pid`, wherever it executes. Errors: ESRCH; EPERM: it is in none.
  void find(pid_t pid, Done done);
  // The roots of all, over the nodes, in order. A node that does not answer has none.
  void find_all(std::function<void(std::vector<pid_t>)> done);

 private:
  struct Search;

  // As far as it is known here.
  std::vector<pid_t> local_roots() const;
  void find_roots(const std::shared_ptr<Search>& search);
  bool is_checkpointable(pid_t pid) const;
  std::optional<uint32_t> job_of_orphan(pid_t pid) const;
  std::optional<pid_t> only_task_of(uint32_t job) const;
  void climb_from_task(checkpoint_messages::FindApplication ask, Done done);
  void climb(checkpoint_messages::FindApplication ask, Done done);
  void ask(NodeId to, const checkpoint_messages::FindApplication& question, Done done);

  NodeContext& node_;
  ProcessTable& table_;
  CapabilityTable& capabilities_;
  const std::function<std::vector<pid_t>(uint32_t job)> tasks_of_;
};

}  // namespace krg
