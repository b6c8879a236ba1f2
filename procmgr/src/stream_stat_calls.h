// StreamStatCalls: fstat of a body's streams. A stream is a file of krgfs, which the kernel takes
// for a regular file; programs ask for the type to know whether they may seek (head, tail), whether
// they read a pipe, or whether they were started as they should have been (Java's jspawnhelper). So
// the filter of bodies stops the call for descriptors 0 to 2 and for those that came as streams,
// and what the home says is the answer.
//
// Owner: Descriptors. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include "krg/procmgr/session_fs.h"
#include "krg/procmgr/syscall_broker.h"
#include "stream_tree.h"

namespace krg {

class StreamStatCalls {
 public:
  // Registers with `broker`; all must outlive its calls.
  StreamStatCalls(SyscallBroker& broker, SessionFs& fs, StreamTree& tree);

 private:
  void handle(SyscallBroker::Call call);

  SessionFs& fs_;
  StreamTree& tree_;
};

}  // namespace krg
