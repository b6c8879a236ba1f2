// ProcPids: what stands below /proc/PID. A process that simply runs here is a link into the
// session's own procfs and costs nothing. A directory of ours is shown for
//   - a process of another node, also where its shadow is here: files come from that node on
//   open(2);
//   - a body, and what lives in a body's group or session: stat and status with the relatives that
//     they have in the cluster, all else links into the own procfs;
//   - a process with threads on other nodes: stat and status with what those nodes know; arguments
//     and environment, which procfs cannot read there.
//
// FileIds: kPidLinkBase + pid for links; directories and what is below them get numbers from
// kFirstNumbered on as they are looked up, until the kernel forgets them.
//
// Threads: the loop's thread. Owned by ProcTree.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "alive.h"
#include "cluster_facts.h"
#include "krg/procmgr/process_table.h"
#include "node_files.h"
#include "open_texts.h"
#include "pid_sweeps.h"

namespace krg {

class ProcPids {
 public:
  static constexpr FileId kPidLinkBase = FileId{1} << 32;
  static constexpr FileId kFirstNumbered = FileId{1} << 33;

  // `proc_directory`: the path of the session's procfs, as programs see it too.
  ProcPids(NodeContext& node, ProcessTable& table, PidIdentities& identities, NodeFiles& files,
           ClusterFacts& facts, PlainFiles proc, std::string proc_directory, OpenTexts& texts);
  ProcPids(const ProcPids&) = delete;
  ProcPids& operator=(const ProcPids&) = delete;

  // Does this file belong here?
  static bool owns(FileId file) { return file >= kPidLinkBase; }

  // The entry "PID" of the root.
  void lookup_pid(const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply);
  // Every process of the cluster but the other nodes' krgds, by name.
  void list_pids(const FsCaller& caller, std::function<void(std::vector<FsDirEntry>)> done);

  // REQUIRES for all below: owns(file).
  void lookup(const FsCaller& caller, FileId parent, std::string_view name, FsReply<FsEntry> reply);
  void getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply);
  void readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply);
  void readdir(const FsCaller& caller, FileId directory, FsReply<std::vector<FsDirEntry>> reply);
  void open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply);
  void forget(FileId file);
  // The process whose directory `file` is; 0 when it is anything else.
  pid_t process_of(FileId file) const;

 private:
  // A file or directory that is ours.
  struct Place {
    NodeId node;
    pid_t pid = 0;
    std::string path;  // below procfs: "123", "123/task/124/stat"
    struct stat attributes {};
    std::string target;  // of a link
    std::string name() const { return path.substr(path.rfind('/') + 1); }
  };

  void lookup_local(pid_t pid, FsReply<FsEntry> reply);
  void lookup_elsewhere(const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply);
  void lookup_where_it_runs(const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply);
  void lookup_on(NodeId node, const FsCaller& caller, pid_t pid, FsReply<FsEntry> reply);
  bool lookup_known(const Place& parent, std::string_view name, FsReply<FsEntry>& reply);
  void lookup_link(const FsCaller& caller, Place place, FsReply<FsEntry> reply);
  std::string link_path(const std::string& path) const { return proc_directory_ + '/' + path; }
  FsEntry entry_of(Place place, double valid_s);
  bool is_linked(const Place& directory, std::string_view name) const;
  const Place* find(FileId file) const;
  using TextDone = std::function<void(Result<std::string>)>;
  void read(const FsCaller& caller, const Place& place, bool may_sweep, TextDone done);
  Result<std::string> as_seen_here(const Place& place, Result<std::string> text) const;

  NodeContext& node_;
  ProcessTable& table_;
  PidIdentities& identities_;
  NodeFiles& files_;
  ClusterFacts& facts_;
  PlainFiles proc_;
  std::string proc_directory_;
  OpenTexts& texts_;
  PidSweeps sweeps_;
  std::map<std::pair<NodeId, std::string>, FileId> numbers_;
  std::unordered_map<FileId, Place> places_;
  FileId next_number_ = kFirstNumbered;
  Alive alive_;
};

}  // namespace krg
