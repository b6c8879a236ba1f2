// InotifyCalls: inotify_add_watch(2) and inotify_rm_watch(2). Of processes whose inotify instance
// is at another node they are made there, where its watches are; the paths of all are kept.
//
// Owner: Descriptors. Threads: the loop's; watches are made in workers.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/syscall_broker.h"
#include "remote_home.h"
#include "stream_tree.h"
#include "watched_paths.h"

namespace krg {

class InotifyCalls {
 public:
  InotifyCalls(NodeContext& node, SyscallBroker& broker, StreamTree& tree, RemoteHome& home,
               WatchedPaths& paths);
  InotifyCalls(const InotifyCalls&) = delete;
  InotifyCalls& operator=(const InotifyCalls&) = delete;

 private:
  void handle(SyscallBroker::Call call);
  void goes_on(SyscallBroker::Call call);

  NodeContext& node_;
  StreamTree& tree_;
  WatchedPaths& paths_;
};

}  // namespace krg
