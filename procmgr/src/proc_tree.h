// ProcTree: the tree "proc" of krgfs, bound over /proc in the session's mount namespace. It shows
// the cluster as one machine (procmgr/PROC.md says which file shows what): sums for what tells
// about the machine, every process of the cluster, /proc/nodes; the rest links into the session's
// own procfs.
//
// Threads: the loop's thread. Owned by ProcView.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cluster_texts.h"
#include "krg/procmgr/proc_folder.h"
#include "krg/procmgr/session_fs.h"
#include "open_texts.h"
#include "proc_pids.h"

namespace krg {

class ProcTree : public FsTree {
 public:
  // True when thread `tid` asked to see its own node instead of the sums.
  using SeesLocal = std::function<bool(pid_t tid)>;
  // Makes the text of sysvipc/NAME, where it is the session's; false: it is this node's own.
  using IpcText = std::function<bool(std::string_view name, OpenTexts::Done done)>;

  // `proc`: the session's procfs; `proc_directory`: its path, as programs see it too.
  ProcTree(NodeContext& node, ProcessTable& table, PidIdentities& identities, NodeFiles& files,
           ClusterFacts& facts, PlainFiles proc, std::string proc_directory, SeesLocal sees_local);

  // REQUIRES: before the tree is served; it outlives the tree.
  void add_folder(ProcFolder& folder) { folders_.push_back(&folder); }

  void lookup(const FsCaller& caller, FileId parent, std::string_view name,
              FsReply<FsEntry> reply) override;
  void getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) override;
  void readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply) override;
  void readdir(const FsCaller& caller, FileId directory,
               FsReply<std::vector<FsDirEntry>> reply) override;
  void open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) override;
  void read(const FsCaller& caller, FileId file, uint64_t handle, uint64_t offset, size_t size,
            int flags, FsReply<std::string> reply) override;
  void write(const FsCaller& caller, FileId file, uint64_t handle, uint64_t offset,
             std::string_view data, int flags, FsReply<size_t> reply) override;
  void truncate(const FsCaller& caller, FileId file, uint64_t size, bool by_descriptor,
                FsReply<FsEntry> reply) override;
  void release(FileId file, uint64_t handle) override;
  void forget(FileId file) override;

  // Without it, sysvipc is this node's. REQUIRES: before the file system is served.
  void set_ipc_text(IpcText text) { ipc_text_ = std::move(text); }
  // The process whose directory `file` is; 0 when it is anything else.
  pid_t process_of(FileId file) const { return pids_.process_of(file); }

 private:
  void lookup_in_root(const FsCaller& caller, std::string_view name, FsReply<FsEntry> reply);
  void lookup_in_nodes(FileId parent, std::string_view name, FsReply<FsEntry> reply);
  void list_root(const FsCaller& caller, FsReply<std::vector<FsDirEntry>> reply);
  OpenTexts::Source ipc_source(std::string_view name);
  OpenTexts::Source source_of(const FsCaller& caller, FileId file);
  // Entries of added folders, by their path below /proc.
  Result<FsEntry> folder_entry(const std::string& path);
  ProcFolder* folder_of(std::string_view path, std::string* below) const;
  const std::string* folder_path(FileId file) const;
  std::string target_of(FileId link) const;
  // The number of a plain name that is linked through; it keeps it.
  FileId link_number(std::string_view name);

  NodeContext& node_;
  PlainFiles proc_;
  std::string proc_directory_;
  SeesLocal sees_local_;
  IpcText ipc_text_;
  OpenTexts texts_;
  ClusterTexts machine_;
  ProcPids pids_;
  std::vector<std::string> links_;
  std::vector<ProcFolder*> folders_;
  std::vector<std::string> folder_paths_;  // those that have a number
  Alive alive_;
};

// The thread group of thread `tid` of this session; 0 when it has gone.
pid_t thread_group_of(const PlainFiles& proc, pid_t tid);

}  // namespace krg
