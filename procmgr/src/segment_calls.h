// SegmentCalls: shmget, shmat, shmdt and shmctl of this node's processes: segments are the
// cluster's. The home has the table (SegmentHome), the contents are mapped as shared files are.
//
// Owner: SharedMemory. Threads: the loop's thread. A process in an IPC namespace of its own keeps
// what its kernel has. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <set>

#include "krg/procmgr/syscall_broker.h"
#include "segment_messages.h"
#include "shared_mappings.h"

namespace krg {

class SegmentCalls {
 public:
  SegmentCalls(NodeContext& node, SyscallBroker& broker, SharedFiles& files,
               SharedMappings& mappings);
  SegmentCalls(const SegmentCalls&) = delete;
  SegmentCalls& operator=(const SegmentCalls&) = delete;

  // The text of /proc/sysvipc/shm.
  void text(std::function<void(Result<std::string>)> done);

 private:
  using Call = SyscallBroker::Call;
  using CallPtr = std::shared_ptr<Call>;
  void on_call(Call call);
  void get(CallPtr call, SegmentRequest request);
  void attach(CallPtr call, SegmentRequest request);
  void detach(CallPtr call, SegmentRequest request);
  void unmap(Call& call, SegmentRequest request, const SharedFile& file);
  void control(CallPtr call, SegmentRequest request);
  void information(CallPtr call, SegmentRequest request);
  void state(CallPtr call, SegmentRequest request, bool by_index);
  void ask(const CallPtr& call, const SegmentRequest& request,
           std::function<void(std::string)> answered);

  NodeContext& node_;
  SharedFiles& files_;
  SharedMappings& mappings_;
  std::set<FileId> segments_;  // that this node knows to be some
};

}  // namespace krg
