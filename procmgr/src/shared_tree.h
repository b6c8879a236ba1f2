// SharedTree: the tree of krgfs that is a session's /dev/shm. Names and attributes are asked of the
// home (shared_home.h); contents are read and written in this node's page set.
//
// Owner: SharedMemory. Threads: the loop's thread. Nothing is cached by the kernel: what another
// node changed is seen by the next system call.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "shared_files.h"
#include "shared_messages.h"
#include "stored_files.h"

namespace krg {

class SharedTree : public FsTree, public StoredFiles {
 public:
  static constexpr std::string_view kName = "shm";

  SharedTree(NodeContext& node, SharedFiles& files) : node_(node), files_(files) {}

  // Where krgd finds a file of this tree whether it has a name or not, below SessionFs::root().
  static std::string path_of(FileId file);

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
  void setattr(const FsCaller& caller, FileId file, const FsChange& change,
               FsReply<FsEntry> reply) override;
  void extend(const FsCaller& caller, FileId file, uint64_t end, FsReply<int> reply) override;
  void create(const FsCaller& caller, FileId parent, std::string_view name, mode_t mode, int flags,
              FsReply<FsCreated> reply) override;
  void make(const FsCaller& caller, FileId parent, std::string_view name, mode_t mode,
            std::string_view target, FsReply<FsEntry> reply) override;
  void link(const FsCaller& caller, FileId file, FileId parent, std::string_view name,
            FsReply<FsEntry> reply) override;
  void unlink(const FsCaller& caller, FileId parent, std::string_view name, bool directory,
              FsReply<int> reply) override;
  void rename(const FsCaller& caller, FileId from, std::string_view name, FileId to,
              std::string_view new_name, unsigned flags, FsReply<int> reply) override;
  void statfs(const FsCaller& caller, FsReply<FsSpace> reply) override;
  void release(FileId file, uint64_t handle) override;
  void punch_hole(FileId file, uint64_t offset, uint64_t bytes, FsReply<int> reply) override;

 private:
  struct Names {
    std::string_view first = {}, second = {};
  };
  using Answered = std::function<void(Result<std::string>)>;
  void ask(const FsCaller& caller, SharedRequest request, Names names, Answered answered);
  void ask_entry(const FsCaller& caller, SharedRequest request, Names names,
                 FsReply<FsEntry> reply);
  void ask_done(const FsCaller& caller, SharedRequest request, Names names, FsReply<int> reply);
  void write_inside(FileId file, uint64_t offset, const std::string& data,
                    std::shared_ptr<FsReply<size_t>> reply);
  void tell_home(FileId file, SharedNotice::What what);

  NodeContext& node_;
  SharedFiles& files_;
};

}  // namespace krg
