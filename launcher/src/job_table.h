// JobTable: the jobs of the cluster. A job is what one krgrun runs; its home is the node of that
// krgrun. The control connection of krgrun is the job's life line: when it closes, the job's
// processes are killed on every node.
//
// Commands that krgrun calls, in this order (arguments -> result):
//   job.begin {options} -> {job, node, nodes, memory_per_node, shared_files, forks_by_clone,
//     distant_threads, environment, namespaces: [names]} + descriptors
//   job.started {job} + listener -> {}   from the task itself, just before it execs
//   job.finish {job} -> {killed}         when nothing of the job is left on any node
// Notices to krgrun: node_failed {node, name}.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "krg/procmgr/job_namespaces.h"
#include "krg/runtime/control_server.h"
#include "session.h"

namespace krg {

class JobTable {
 public:
  // A task (one copy of the program) that is about to exec.
  struct Task {
    JobId job;
    pid_t pid = 0;
    const nlohmann::json& options;  // of job.begin
    UniqueFd& listener;             // of its system call filter; -1 when it has none
  };

  JobTable(NodeContext& node, ControlServer& control, const Session& session);
  JobTable(const JobTable&) = delete;
  JobTable& operator=(const JobTable&) = delete;

  // What must happen before a task execs; an error is the launch's failure. In the order of
  // registration.
  void on_task_start(std::function<Status(const Task&)> prepare);
  // Jobs whose home is this node, as `kradm cluster status` shows them.
  nlohmann::json describe() const;
  // The first processes of a job whose home is this node, ended ones, too.
  std::vector<pid_t> tasks_of(JobId job) const;
  // Which standard stream of a job, of those whose home is this node, that file is to who has it
  // open to read it or to write: 0 to 2; -1: none.
  int stream_of(dev_t device, ino_t inode, bool is_written) const;
  size_t job_count() const { return jobs_.size(); }
  // Programs may have threads on several nodes here.
  void offer_distant_threads() { has_distant_threads_ = true; }

 private:
  struct Job {
    ControlServer::ConnectionId connection;
    nlohmann::json options;
    std::vector<pid_t> tasks;
    std::vector<std::pair<dev_t, ino_t>> streams = {};  // three of each task
  };
  static void note_streams(pid_t task, Job& job);
  // One job being ended on this node: its processes are killed until none is left.
  struct Ending {
    std::vector<std::function<void(unsigned killed)>> done;
    std::set<pid_t> killed;
    EventLoop::Timer retry;
  };

  void begin(ControlServer::Request request, ControlServer::Reply reply);
  void started(ControlServer::Request request, ControlServer::Reply reply);
  void finish(ControlServer::Request request, ControlServer::Reply reply);
  void end_everywhere(JobId job, std::function<void(unsigned killed)> done);
  void end_here(JobId job, std::function<void(unsigned killed)> done);
  void kill_members(JobId job);
  void tell_node_failure(NodeId failed);
  Result<JobId> job_of(const ControlServer::Request& request) const;

  NodeContext& node_;
  ControlServer& control_;
  const Session& session_;
  std::vector<std::function<Status(const Task&)>> preparations_;
  std::map<JobId, Job> jobs_;
  std::map<JobId, Ending> endings_;
  uint16_t next_job_ = 1;
  bool has_distant_threads_ = false;
};

}  // namespace krg
