// FdImporter: makes local descriptors of recipes, and gives file offsets back when a body ends.
// Owner: Descriptors. Threads: the loop's thread; opening happens in workers, because krgd may be
// the one who serves what is opened. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <unordered_map>

#include "fd_recipe.h"
#include "krg/procmgr/descriptors.h"
#include "listener_relays.h"
#include "remote_home.h"
#include "socket_relays.h"
#include "stream_tree.h"
#include "terminal_mirrors.h"

namespace krg {

class FdImporter {
 public:
  using Done = std::function<void(Result<std::vector<ImportedFd>>)>;

  FdImporter(NodeContext& node, SessionFs& fs, RemoteHome& home, StreamTree& tree,
             TerminalMirrors& mirrors, SocketRelays& relays, ListenerRelays& listeners,
             HomeRecordLocks& record_locks)
      : node_(node),
        fs_(fs),
        home_(home),
        tree_(tree),
        mirrors_(mirrors),
        relays_(relays),
        listeners_(listeners),
        record_locks_(record_locks) {}

  void import_all(pid_t pid, const std::vector<ExportedFd>& fds, Done done);
  // What was passed by a socket to body `pid`; 0: to some process of this node.
  void import_passed(pid_t pid, const std::vector<ExportedFd>& fds, Done done);
  void body_ended(pid_t pid, std::function<void()> done);
  // Tells homes where bodies, and who has their descriptors here, too, have sought to.
  void settle_offsets();

 private:
  // A descriptor being made.
  struct Item {
    int number = -1;
    bool close_on_exec = false;
    DecodedRecipe recipe;
    FileId import = 0;              // in the tree, for a stream
    bool elsewhere = false;         // the path leads to another file here: to be had by stream
    std::shared_ptr<void> settled;  // of a stream: when it goes, the exporter is told
    UniqueFd fd;
    Error error;
  };
  struct Job {
    pid_t pid = 0;
    std::vector<Item> items;
    Done done;
    bool is_passed = false;
  };
  // An offset to be handed back: the body's open file, and where its exporter keeps the original.
  struct Loan {
    UniqueFd fd;
    NodeId exporter;
    HomeId guard;
    int64_t lent = 0;
    FileId shared = 0;  // one whose offset is shared: the import
  };

  void begin(const std::shared_ptr<Job>& job, const std::vector<ExportedFd>& fds);
  Status prepare(const Job& job, Item& item);
  Status prepare_event(Item& item);
  static Status prepare_new_socket(Item& item);
  static Status share_description(const Job& job, Item& item);
  Status prepare_socket(const Job& job, Item& item);
  bool may_be_native(const Item& item) const;
  Status prepare_native_socket(pid_t pid, Item& item);
  Status prepare_listener(pid_t pid, Item& item);
  Status prepare_terminal(pid_t pid, Item& item);
  void acquire(Item& item);
  Status prepare_stream(pid_t pid, Item& item);
  void open_in_worker(const std::shared_ptr<Job>& job);
  void open_streams_for_missing_files(const std::shared_ptr<Job>& job);
  void finish(Job& job);
  void fail(Job& job, Error error);
  void lend_offset(pid_t pid, const Item& item);
  void share_offset(pid_t pid, const Item& item);
  void settle(const std::vector<Loan>& loans, bool may_be_reading);
  void tell_exporter(const FdRecipe& recipe);
  Status find_session_root();

  NodeContext& node_;
  SessionFs& fs_;
  RemoteHome& home_;
  StreamTree& tree_;
  TerminalMirrors& mirrors_;
  SocketRelays& relays_;
  ListenerRelays& listeners_;
  HomeRecordLocks& record_locks_;
  UniqueFd session_root_;  // "/" of the session's mount namespace
  std::unordered_map<pid_t, std::vector<Loan>> loans_;
};

}  // namespace krg
