// ProcView: shows the cluster as one machine in /proc and /sys/devices/system/cpu. It adds the
// trees "proc" and "cpu" to the session's krgfs, to be bound there in the session's mount
// namespace, and serves the same views of the other nodes with what they need of this one.
// procmgr/PROC.md says which file shows what.
//
// Threads: the loop's thread. Owned by krgd's main. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "krg/procmgr/capability_table.h"
#include "krg/procmgr/node_context.h"
#include "krg/procmgr/node_resources.h"
#include "krg/procmgr/proc_folder.h"
#include "krg/procmgr/proc_texts.h"
#include "krg/procmgr/process_table.h"
#include "krg/procmgr/session_fs.h"

namespace krg {

class ProcView {
 public:
  // REQUIRES: the session's procfs is mounted at SESSION_ROOT/proc; `fs` does not serve yet, and
  // serves nothing any more when this is destroyed. Errors: what opening procfs or sysfs says.
  static Result<std::unique_ptr<ProcView>> create(NodeContext& node, SessionFs& fs,
                                                  ProcessTable& table,
                                                  CapabilityTable& capabilities,
                                                  const NodeResources& resources);
  ~ProcView();
  ProcView(const ProcView&) = delete;
  ProcView& operator=(const ProcView&) = delete;

  // Adds a folder to /proc. REQUIRES: `fs` does not serve yet; the folder outlives the view.
  void add_folder(ProcFolder& folder);

  // Makes the texts of /proc/sysvipc; see ProcTree::IpcText. REQUIRES: as create().
  void set_ipc_text(
      std::function<bool(std::string_view name, std::function<void(Result<std::string>)>)> text);
  // Completes texts of processes that run here, for all nodes.
  void set_process_texts(ProcTexts texts);
  // The process whose directory of ours (/proc/PID where that is no link) descriptor `fd` of thread
  // `tid` is; 0 for any other descriptor.
  pid_t process_of_directory(pid_t tid, int fd) const;

 private:
  struct Impl;
  explicit ProcView(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
