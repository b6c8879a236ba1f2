// SPDX-License-Identifier: GPL-2.0-or-later
#include "left_out_memory.h"

#include "checkpoint_messages.h"
#include "payloads.h"

namespace krg {

using namespace checkpoint_messages;

void LeftOutMemory::listen() {
  node_.messenger.on_request<LeaveOut>([weak = weak_from_this()](NodeId, const LeaveOut& say,
                                                                 std::string_view payload,
                                                                 Messenger::Reply reply) {
    auto self = weak.lock();
    if (!self) return;
    self->ranges_.set(say.pid, split_rows<PageRange>(payload));
    reply.ok();
  });
}

void LeftOutMemory::tell(pid_t pid, const std::vector<PageRange>& ranges,
                         std::function<void(Status)> told) {
  table_.locate(GlobalPid{pid}, [self = shared_from_this(), pid, payload = rows(ranges),
                                 told = std::move(told)](Result<NodeId> where) {
    if (!where) return told(where.error());
    LeaveOut say;
    say.pid = pid;
    self->node_.messenger.request(*where, say, payload, [told](const Result<std::string>& reply) {
      told(reply ? Status() : Status(reply.error()));
    });
  });
}

}  // namespace krg
