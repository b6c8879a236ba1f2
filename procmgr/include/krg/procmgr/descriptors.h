// Descriptors: takes a process's descriptors along to another node. On the origin, export_fds()
// steals copies (pidfd_getfd) and says how each can be had elsewhere; on the target, import_fds()
// makes local descriptors of them. A description stays alive at its home while any exported copy of
// it is open anywhere.
//
// Threads: the loop's thread; all calls complete by callback, which may run inside the call.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/stat.h>

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "krg/procmgr/node_context.h"
#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/syscall_broker.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class LockHolders;
class TerminalMirrors;

// One descriptor of a process, as it travels: the number in the process and how to make it (opaque
// bytes).
struct ExportedFd {
  int number = -1;
  std::string recipe;
  bool close_on_exec = false;
  // The process has a lock of its file by fcntl(2), which what it leaves here has to keep: a shadow
  // that keeps this descriptor. Does not travel.
  bool holds_lock = false;
};

// A descriptor made on the target, to be dup2'ed to `number` in the body. Who closes on exec what
// the body's program is to have gets FD_CLOEXEC when it has execed.
struct ImportedFd {
  int number = -1;
  UniqueFd fd;
  bool close_on_exec = false;
  // Of an epoll instance, which is empty: what the process itself has to add (event_fds.h).
  std::string polled = {};
  bool is_krgfs = false;  // krgd answers for it
};

// A process that execs keeps those that are not close-on-exec; one that forks or moves, all. A
// fork's child and its parent use one file offset while both run: a file that has one keeps it here
// (kForked: ENOTSUP).
enum class WhichFds { kKeptByExec, kForked, kAll };

class WatchedPaths;

class Descriptors {
 public:
  Descriptors(NodeContext& node, SessionFs& fs, SyscallBroker& broker);
  ~Descriptors();
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;

  // Who has the locks of processes that leave. REQUIRES: before any process runs.
  void set_lock_holders(LockHolders& holders);

  // Exports the descriptors of `pid`. Error: ENOTSUP with the reason
  // ("descriptor 5 is an epoll instance") when one cannot be taken along; nothing is exported then.
  void export_fds(pid_t pid, WhichFds which,
                  std::function<void(Result<std::vector<ExportedFd>>)> done);
  // Gives exports up that were never imported (the placement failed).
  void cancel_export(const std::vector<ExportedFd>& fds);
  // The process goes on here after all, although another node may have imported them: its sockets
  // are joined to it again. Part of cancel_export().
  void resume_sockets(const std::vector<ExportedFd>& fds);
  // Makes the descriptors on this node for the body `pid`. Error: ENOTSUP or what opening says.
  void import_fds(pid_t pid, std::vector<ExportedFd> fds,
                  std::function<void(Result<std::vector<ImportedFd>>)> done);
  // The body is about to be reported as ended: hands file offsets back home; `done` runs when home
  // has them.
  void body_ended(pid_t pid, std::function<void()> done);

  // Where the description is that a file of krgfs leads to, whose attributes are these; none: it is
  // no such file.
  struct Home {
    NodeId node;
    uint64_t id = 0;              // there
    bool has_own_offset = false;  // each descriptor of it here
  };
  std::optional<Home> home_of(const struct stat& attributes) const;
  // Of a pidfd that is at another node, the process; 0: one that had ended. None: it is no such
  // descriptor.
  std::optional<pid_t> process_of_pidfd(pid_t tid, int number) const;
  // By what paths processes have had inotify watch files of this node.
  WatchedPaths& watched_paths() const;
  // Whether a process that executes on another node has a lock by fcntl(2) of a file of this one.
  bool has_locks_from_elsewhere(pid_t pid) const;
  // A copy of a description that is at home here. Errors: ESTALE.
  Result<UniqueFd> description(uint64_t id) const;

  // A body's end of a socket that is at another node, or a socket that stands for one there that
  // listens.
  struct RelayedSocket {
    Home home;
    uint64_t arrived = 0;  // bytes that have come from there
    std::string unread;    // the last of them: the body has not read them (peek_socket())
    std::string unsent;    // what the body has written, and has not gone there
  };
  // None: it is no such socket. Errors: EAGAIN: something is on its way in this node.
  Result<std::optional<RelayedSocket>> relayed_socket(int socket) const;
  // What the home of such a socket has of it. Errors: ESTALE.
  struct HomeOfSocket {
    uint64_t consumed = 0;     // bytes taken off the socket because a body has them
    std::string came;          // before what the socket has
    std::string unwritten;     // behind what the socket has
    bool has_waiting = false;  // it listens, and connections are on their way
  };
  Result<HomeOfSocket> socket_at_home(uint64_t id) const;
  // What bodies here write to sockets of other nodes stays here as long as the result lives.
  std::shared_ptr<void> hold_sockets();

  // The pseudo-terminals of bodies; for ControllingTerminals.
  TerminalMirrors& terminals();

  // What is held now: descriptions of this node that others use (or that are being exported), and
  // open streams of other nodes. Both are 0 when all is quiet.
  size_t descriptions_kept() const;
  size_t streams_open() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
