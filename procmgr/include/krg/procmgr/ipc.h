// Ipc: the interprocess communication that is not memory itself: System V semaphores, message
// queues (System V and POSIX), and futexes in shared memory, the same for every process of the
// session on every node.
// procmgr/IPC.md tells how.
//
// Threads: the loop's thread. Owned by krgd's main.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/saved_ipc.h"
#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/procmgr/syscall_broker.h"

namespace krg {

// What Ipc asks of the memory that other nodes share.
struct SharedWords {
  // False while there is none of it on this node: then locate() is not asked.
  std::function<bool()> exist;
  // Where `address` of a process lies in it; nothing when it lies elsewhere.
  std::function<std::optional<SharedPlace>(pid_t process, RemoteAddr address)> locate;
  // The memory file of a set on this node, which programs here have mapped; -1: there is none.
  std::function<int(SetId)> memory;
  // A program waits for others to change the word, or has told them that it is changed: its page
  // may leave this node at once.
  std::function<void(const SharedPlace&)> let_go;
};

// Objects that have been made again, which are removed when this goes before keep().
class RestoredIpc {
 public:
  virtual ~RestoredIpc() = default;
  // A description of POSIX queue `index` of the SavedIpc. In a worker. Errors: of open(2).
  virtual Result<UniqueFd> open_posix_queue(size_t index, int flags) const = 0;
  // All stay. Of each process with something to be undone: where it executes.
  virtual void keep(const std::function<NodeId(pid_t)>& node_of) = 0;
};

class Ipc {
 public:
  // Registers the handlers of their system calls, in a cluster of more than one node; a single
  // node's kernel does it all itself. The tree "mqueue" of `fs` is the session's /dev/mqueue then.
  // REQUIRES: before fs.serve().
  Ipc(NodeContext& node, SyscallBroker& broker, SessionFs& fs, SharedWords words);
  ~Ipc();
  Ipc(const Ipc&) = delete;
  Ipc& operator=(const Ipc&) = delete;

  // Process `pid` of this node has ended; to be called before a message tells another node so.
  // Others than bodies are noticed without it.
  void process_ended(pid_t pid);
  // The text of /proc/sysvipc/NAME, or for "mqueue" a line for each POSIX queue behind a heading;
  // false for a name that is not one of its own (this node's then).
  bool read_text(std::string_view name, std::function<void(Result<std::string>)> done);
  // For checkpoints. Whose calls do not wait, since they are about to be frozen.
  void end_waits_if(std::function<bool(pid_t process)> has_to_stop);
  // The POSIX queue that a file is; 0: none that nodes share.
  int64_t posix_queue_of(const struct stat& file) const;
  // What nodes share of a family that stands, `others` running, too: with its POSIX queues'
  // numbers, all `held` ones among them. Errors: ENOTSUP: whose one is is not known.
  struct Saved {
    SavedIpc ipc;
    std::vector<int64_t> queues;
  };
  struct Whose {
    std::vector<pid_t> members, others;
    std::vector<int64_t> held;
  };
  void save(const Whose& whose, std::function<void(Result<Saved>)> done);
  // All of it again, for all nodes. Errors: EEXIST; ENOTSUP: nodes share none here.
  using Restored = std::unique_ptr<RestoredIpc>;
  void restore(const SavedIpc& saved, std::function<void(Result<Restored>)> done);
  // Calls that wait, of this node's programs.
  size_t waiting_count() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
