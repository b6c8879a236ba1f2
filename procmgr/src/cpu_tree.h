// CpuTree: the tree "cpu" of krgfs, bound over /sys/devices/system/cpu in the session's mount
// namespace: the processors of all nodes, node after node, each with its topology and caches. What
// else is there (vulnerabilities, smt, ...) is this node's. Read-only.
//
// FileIds: a processor's directory is kCpus + numbering + number * kPathLimit, its files and
// folders follow by the number of their path; the rest is numbered as it is found.
//
// Threads: the loop's thread. Owned by ProcView.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "alive.h"
#include "cluster_facts.h"
#include "krg/procmgr/session_fs.h"
#include "open_texts.h"

namespace krg {

class CpuTree : public FsTree {
 public:
  // True when thread `tid` asked to see its own node instead of the sums.
  using SeesLocal = std::function<bool(pid_t tid)>;

  // `plain`: sysfs' devices/system/cpu, which krgd still sees.
  CpuTree(NodeContext& node, ClusterFacts& facts, PlainFiles plain, SeesLocal sees_local);

  void lookup(const FsCaller& caller, FileId parent, std::string_view name,
              FsReply<FsEntry> reply) override;
  void getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) override;
  void readlink(const FsCaller& caller, FileId file, FsReply<std::string> reply) override;
  void readdir(const FsCaller& caller, FileId directory,
               FsReply<std::vector<FsDirEntry>> reply) override;
  void open(const FsCaller& caller, FileId file, int flags, FsReply<FsOpened> reply) override;
  void read(const FsCaller& caller, FileId file, uint64_t handle, uint64_t offset, size_t size,
            int flags, FsReply<std::string> reply) override;
  void release(FileId file, uint64_t handle) override;

 private:
  // A processor as some program sees it: by the cluster's numbers, or by this node's own.
  struct Cpu {
    bool own_numbers = false;
    unsigned number = 0;
  };
  struct CpuFile {
    Cpu cpu;
    std::string path;  // below the processor's directory; empty: the directory
  };
  using FilesDone = std::function<void(Result<std::shared_ptr<const CpuFiles>>)>;

  std::optional<CpuFile> cpu_file(FileId file) const;
  FileId cpu_file_id(const Cpu& cpu, const std::string& path);
  Result<FsEntry> plain_entry(FileId file) const;
  void lookup_cpu(const FsCaller& caller, unsigned number, FsReply<FsEntry> reply);
  void lookup_below_cpu(const CpuFile& parent, std::string_view name, FsReply<FsEntry> reply);
  void files_of(const Cpu& cpu, FilesDone done);
  std::string text_of(const CpuFile& file, const CpuFiles& files) const;
  std::optional<std::string> range_text(const std::string& name, bool sees_local) const;
  OpenTexts::Source source_of(const FsCaller& caller, FileId file);

  NodeContext& node_;
  ClusterFacts& facts_;
  PlainFiles plain_;
  SeesLocal sees_local_;
  OpenTexts texts_;
  std::vector<std::string> cpu_paths_{""};  // below a processor's directory, by number
  std::vector<std::string> plain_paths_;    // of this node's own files, by number
  Alive alive_;
};

}  // namespace krg
