// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/process_identity.h"

#include <unistd.h>

#include "process_status.h"

namespace krg {
namespace {

constexpr pid_t kKrgdPid = 1;

// A session that was founded here is the kernel's to tell. In krgd's own stand bodies and what they
// forked; of those in a group of their own, an ancestor tells.
pid_t session_of(ProcessTable& table, const ProcessIdentity& process) {
  if (process.session != getsid(0) || !table.has_groups()) return process.session;
  for (pid_t ancestor = process.parent; ancestor > kKrgdPid;) {
    auto stat = read_process_stat(ancestor);
    if (!stat) break;
    if (const auto* leader = table.find_group(stat->group)) return leader->virtual_session;
    ancestor = stat->parent;
  }
  return process.session;
}

}  // namespace

Result<ProcessIdentity> process_identity(ProcessTable& table, pid_t pid) {
  auto status = read_process_status(pid);
  if (!status) return status.error();
  return process_identity(table, status->pid, {status->parent, status->group, status->session});
}

ProcessIdentity process_identity(ProcessTable& table, pid_t pid, const ProcessIdentity& kernel) {
  ProcessIdentity identity = kernel;
  if (table.find_body(pid)) identity.parent = 0;
  if (const auto* leader = table.find_group(kernel.group)) {
    identity.group = leader->virtual_group;
    identity.session = leader->virtual_session;
  } else {
    identity.session = session_of(table, kernel);
  }
  return identity;
}

}  // namespace krg
