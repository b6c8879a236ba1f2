// FdExporter: says how each descriptor of a process can be had on another node, and keeps at home
// what must stay. Owner: Descriptors. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <map>
#include <memory>

#include "event_fds.h"
#include "fd_recipe.h"
#include "home_terminals.h"
#include "krg/procmgr/descriptors.h"
#include "listener_relays.h"
#include "process_fds.h"
#include "remote_home.h"
#include "stream_tree.h"
#include "terminal_mirrors.h"

namespace krg {

// Why it stays: ENOTSUP.
Error not_taken_along(const StolenFd& fd, std::string_view why = {});

class FdExporter {
 public:
  FdExporter(NodeContext& node, SessionFs& fs, RemoteHome& home, StreamTree& tree,
             HomeTerminals& terminals, TerminalMirrors& mirrors, SocketRelays& relays,
             ListenerRelays& listeners)
      : node_(node),
        fs_(fs),
        home_(home),
        tree_(tree),
        terminals_(terminals),
        mirrors_(mirrors),
        relays_(relays),
        listeners_(listeners) {}

  // The relays of sockets that no other process has: they are to be paused before the process is
  // exported, and its sockets go on from their homes. Empty where there are none.
  std::vector<uint64_t> own_relays(pid_t pid) const;
  // All of them or none. Errors: ENOTSUP, naming the descriptor that cannot be taken along.
  Result<std::vector<ExportedFd>> export_all(pid_t pid, WhichFds which);
  // The same of descriptors that a process passes by a socket, of which krgd has copies.
  Result<std::vector<ExportedFd>> export_passed(std::vector<UniqueFd> fds);
  void cancel(const std::vector<ExportedFd>& fds);
  // The process goes on here, whether or not its descriptors were imported elsewhere: it has its
  // sockets again.
  void resume_sockets(const std::vector<ExportedFd>& fds);

 private:
  // `is_alone`: it is moved, and no other process has the description.
  // `has_sharers`: other processes move its offset, too.
  Result<std::string> export_one(StolenFd fd, bool is_alone, bool has_sharers, WhichFds which,
                                 pid_t pid);
  Result<std::string> export_passed_one(StolenFd fd);
  std::string export_same(const StolenFd& fd, int first) const;
  Result<std::string> export_event(StolenFd fd, pid_t pid, WhichFds which,
                                   const std::vector<StolenFd>& all, OthersDescriptors& others);
  Result<std::string> export_inotify(StolenFd fd, WhichFds which, OthersDescriptors& others);
  Result<std::string> export_master(StolenFd fd, WhichFds which, OthersDescriptors& others);
  // Stays at home, where `make` makes what stands for it; nobody else may have it.
  using MakeHome = std::function<std::unique_ptr<HomePipe>(EventLoop& loop, UniqueFd real)>;
  Result<std::string> export_unshared(StolenFd fd, FdKind kind, const MakeHome& make,
                                      WhichFds which, OthersDescriptors& others);
  Result<std::string> export_pidfd(StolenFd fd, pid_t pid);
  Result<std::string> export_counter(StolenFd fd);
  Result<std::string> export_character_device(StolenFd fd);
  Result<std::string> export_terminal(StolenFd fd, const TerminalSettings& settings);
  Result<std::string> export_socket(StolenFd fd, bool is_alone);
  std::optional<std::string> export_relay(StolenFd& fd);
  Result<std::string> export_listener(StolenFd fd, bool is_alone);
  Result<std::string> export_regular(StolenFd fd, bool is_alone, bool has_sharers);
  Result<std::string> export_shared(StolenFd fd, FdKind kind, FileId file);
  Result<std::string> export_stream(StolenFd fd);
  Result<std::string> export_again(StolenFd fd, const StreamSource& source, pid_t leaves);
  bool have(OthersDescriptors& others, const StolenFd& fd) const;
  bool uses_offset(const StolenFd& fd) const;
  bool may_share_offset(const StolenFd& fd) const;
  static void mark_locked(std::vector<StolenFd>& fds);
  std::string_view lock_obstacle(const StolenFd& fd, WhichFds which, bool is_alone) const;
  static bool is_standard_output(const StolenFd& fd, const std::vector<StolenFd>& all);
  FdRecipe recipe_for(FdKind kind, const StolenFd& fd) const;

  NodeContext& node_;
  SessionFs& fs_;
  RemoteHome& home_;
  StreamTree& tree_;
  HomeTerminals& terminals_;
  TerminalMirrors& mirrors_;
  SocketRelays& relays_;
  ListenerRelays& listeners_;
  std::map<dev_t, HomeId> exported_terminals_;  // of the process being exported
  std::map<ino_t, HomeId> exported_sockets_;
  std::map<ino_t, std::string> exported_relays_;  // their recipes
};

// Names the file systems of this running kernel: two nodes with the same answer and the same device
// number mean the same file system.
uint64_t filesystem_identity(dev_t device);
FileIdentity identity_of(const struct stat& attributes);

}  // namespace krg
