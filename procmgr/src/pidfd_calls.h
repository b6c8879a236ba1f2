// PidfdCalls: pidfd_open(2) of processes that were born on another node. The pidfd is made there,
// where it tells of the process's end wherever it goes, and polled through krgfs.
// Owner: Descriptors. Threads: the loop's thread; descriptors are opened in workers.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/syscall_broker.h"
#include "remote_home.h"
#include "stream_tree.h"

namespace krg {

class PidfdCalls {
 public:
  PidfdCalls(NodeContext& node, SyscallBroker& broker, SessionFs& fs, StreamTree& tree,
             RemoteHome& home);
  PidfdCalls(const PidfdCalls&) = delete;
  PidfdCalls& operator=(const PidfdCalls&) = delete;

 private:
  bool takes(SyscallBroker::Call& call);
  void open(const std::shared_ptr<SyscallBroker::Call>& call, const StreamSource& source);

  NodeContext& node_;
  SessionFs& fs_;
  StreamTree& tree_;
};

}  // namespace krg
