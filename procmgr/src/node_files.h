// NodeFiles: files below /proc/PID of processes on any node, and each node's list of processes. A
// node serves its own session's procfs to the others as the asking user may see it; where its
// kernel does not know a process's relatives (bodies), it puts them right before it answers.
//
// Threads: the loop's thread; what may block is done in workers. `done` runs exactly once. Owned by
// ProcView. Errors are errno values as procfs gives them; EHOSTDOWN when the node has failed.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/proc_texts.h"
#include "krg/procmgr/process_table.h"
#include "pid_identities.h"
#include "plain_files.h"

namespace krg {

// A process as its node lists it.
struct ListedProcess {
  pid_t pid = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  NodeId runs_on{};  // another node where only the shadow is here
  uint16_t padding = 0;
};
static_assert(sizeof(ListedProcess) == 16);

class NodeFiles {
 public:
  template <class T>
  using Done = std::function<void(Result<T>)>;
  using TextByPid = std::map<pid_t, std::string>;

  NodeFiles(NodeContext& node, ProcessTable& table, PidIdentities& identities, PlainFiles proc,
            int64_t own_boot_epoch_ns);
  ~NodeFiles();
  NodeFiles(const NodeFiles&) = delete;
  NodeFiles& operator=(const NodeFiles&) = delete;

  // For what this node serves.
  void set_texts(ProcTexts texts);
  // Whether files of this process or thread of this node are to be read through this.
  bool are_completed(pid_t pid) const;

  // `path` is below the session's procfs: "meminfo", "123/stat".
  void read(NodeId node, FileUser user, std::string path, Done<std::string> done);
  void write(NodeId node, FileUser user, std::string path, std::string_view data,
             Done<size_t> done);
  // Error: EREMOTE of a process ("123") that has its shadow only on the node.
  void attributes(NodeId node, FileUser user, std::string path, Done<struct stat> done);
  void link_target(NodeId node, FileUser user, std::string path, Done<std::string> done);
  void list(NodeId node, FileUser user, std::string path, Done<std::vector<FsDirEntry>> done);
  // The file `name` ("stat") of every process that executes on the node; those that cannot be read
  // are missing.
  void read_of_every_process(NodeId node, FileUser user, std::string name, Done<TextByPid> done);
  // Every process of the node, shadows included, without krgd.
  void processes(NodeId node, Done<std::vector<ListedProcess>> done);

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // answers that come late hold it weakly
};

}  // namespace krg
