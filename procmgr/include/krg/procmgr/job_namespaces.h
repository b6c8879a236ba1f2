// JobNamespaces: which processes of this node belong to which job. Each job has a UTS namespace of
// its own on each node: every process inherits it over fork, exec and setsid, whatever it does to
// its parents, groups or environment, and jobs share nothing worth sharing through it (only the
// host name). A job's first process and its bodies join it by setns(2); reading a process's
// namespace tells its job.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "krg/procmgr/process_table.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class JobNamespaces {
 public:
  JobNamespaces() = default;
  JobNamespaces(const JobNamespaces&) = delete;
  JobNamespaces& operator=(const JobNamespaces&) = delete;

  // A descriptor of the job's UTS namespace on this node, to be given to setns(fd, CLONE_NEWUTS);
  // made when first asked for. It stays this object's. Errors: what unshare(2) says.
  Result<int> descriptor(JobId job);
  // The job of a process or thread of this node; nothing for krgd itself and for a process that is
  // gone or left its namespace (which takes CAP_SYS_ADMIN).
  std::optional<JobId> job_of(pid_t pid) const;
  // Every live process of the job that is here, shadows included; a zombie has no namespaces any
  // more.
  std::vector<pid_t> members(JobId job) const;
  // The job has ended everywhere. Its namespace goes with its last process.
  void forget(JobId job);
  // The jobs that have been seen here and not been forgotten.
  std::vector<JobId> jobs() const;

 private:
  struct Namespace {
    UniqueFd fd;
    ino_t inode;
  };
  std::map<JobId, Namespace> namespaces_;
};

}  // namespace krg
