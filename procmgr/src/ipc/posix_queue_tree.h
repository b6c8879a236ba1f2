// PosixQueueTree: the tree of krgfs that is a session's /dev/mqueue. A descriptor that mq_open(3)
// gives is an open file of it: fork, dup, close, poll and the like are the kernel's, what is asked
// of queues goes to their home (posix_queues.h).
//
// Owner: Ipc. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <vector>

#include "krg/procmgr/session_fs.h"
#include "posix_queues.h"
#include "system_v_calls.h"

namespace krg {

class PosixQueueTree : public FsTree {
 public:
  static constexpr std::string_view kName = "mqueue";

  // `released(queue)`: an open file of it has gone.
  PosixQueueTree(NodeContext& node, SystemVCalls& home, std::function<void(int64_t)> released);

  // Where krgd finds a queue whether it has a name or not, below SessionFs::root().
  static std::string path_of(int64_t queue);

  void lookup(const FsCaller& caller, FileId parent, std::string_view name,
              FsReply<FsEntry> reply) override;
  void getattr(const FsCaller& caller, FileId file, FsReply<FsEntry> reply) override;
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
  void create(const FsCaller& caller, FileId parent, std::string_view name, mode_t mode, int flags,
              FsReply<FsCreated> reply) override;
  void unlink(const FsCaller& caller, FileId parent, std::string_view name, bool directory,
              FsReply<int> reply) override;
  void poll(const FsCaller& caller, FileId file, uint64_t handle, std::function<void()> wake,
            FsReply<uint32_t> reply) override;
  void release(FileId file, uint64_t handle) override;

 private:
  using Args = std::array<int64_t, 4>;
  void ask(const FsCaller& caller, PosixQueueOp op, Args args, std::string data,
           SystemVCalls::Answered done);
  void ask_entry(const FsCaller& caller, PosixQueueOp op, Args args, std::string data,
                 FsReply<FsEntry> reply);

  SystemVCalls& home_;
  std::function<void(int64_t)> released_;
  std::map<int64_t, std::vector<std::function<void()>>> pollers_;
};

}  // namespace krg
