// SPDX-License-Identifier: GPL-2.0-or-later
#include "segment_home.h"

#include <fmt/format.h>
#include <sys/ipc.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "packed_bytes.h"

namespace krg {
namespace {

void answer(Messenger::Reply& reply, const Result<SegmentState>& state) {
  if (!state) return reply.fail(state.error().errno_or(EINVAL));
  reply.ok(object_bytes(*state));
}

// As the kernel writes /proc/sysvipc/shm (sysvipc(7), ipc/shm.c).
std::string text_of(const std::vector<SegmentState>& segments) {
  std::string text =
      "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  "
      "cgid      atime      dtime      ctime                   rss                  swap\n";
  for (const SegmentState& s : segments)
    text += fmt::format(
        "{:10} {:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} "
        "{:21}\n",
        s.key, s.id, s.mode, s.size, s.creator_pid, s.last_pid, s.attached, s.uid, s.gid,
        s.creator_uid, s.creator_gid, s.attached_s, s.detached_s, s.changed_s, s.size, 0);
  return text;
}

}  // namespace

SegmentHome::SegmentHome(NodeContext& node, SharedHome& files) : node_(node), files_(files) {
  files.on_gone([this](FileId file) { segments_.drop(file); });
  node.messenger.on_request<SegmentRequest>(
      [this](NodeId from, const SegmentRequest& request, std::string_view payload, Reply reply) {
        SharedCaller caller{request.uid, request.gid, {}};
        for (PackedReader reader(payload); !reader.at_end();)
          caller.groups.push_back(reader.get<gid_t>());
        handle(from, request, caller, std::move(reply));
      });
}

void SegmentHome::handle(NodeId from, const SegmentRequest& request, const SharedCaller& caller,
                         Reply reply) {
  switch (request.op) {
    case SegmentOp::kGet:
      return get(request, caller, std::make_shared<Reply>(std::move(reply)));
    case SegmentOp::kAttach:
      return attach(from, request, caller, reply);
    case SegmentOp::kDetached:
      segments_.detached(request.size, request.pid, time(nullptr));
      return reply.ok();
    case SegmentOp::kSet: {
      auto set = segments_.set(caller, request.id, request.new_mode, request.new_uid,
                               request.new_gid, time(nullptr));
      return set ? reply.ok() : reply.fail(set.error().errno_or(EINVAL));
    }
    case SegmentOp::kIsSegment: {
      const auto all = segments_.all();
      const bool is = std::any_of(all.begin(), all.end(),
                                  [&](const SegmentState& s) { return s.file == request.size; });
      return is ? reply.ok() : reply.fail(EINVAL);
    }
    case SegmentOp::kRemove:
      return remove(request, caller, reply);
    case SegmentOp::kInfo:
      return reply.ok(object_bytes(segments_.totals()));
    case SegmentOp::kText:
      return count(segments_.all(), [shared = std::make_shared<Reply>(std::move(reply))](
                                        const auto& counted) { shared->ok(text_of(counted)); });
    case SegmentOp::kStat:
    case SegmentOp::kStatAny: {
      auto state = segments_.state(caller, request.id, request.by_index != 0,
                                   request.op == SegmentOp::kStatAny);
      if (!state) return answer(reply, state);
      return count({*state}, [shared = std::make_shared<Reply>(std::move(reply))](
                                 const auto& counted) { answer(*shared, counted.front()); });
    }
  }
  reply.fail(EINVAL);
}

void SegmentHome::get(const SegmentRequest& request, const SharedCaller& caller, ReplyPtr reply) {
  auto found = segments_.find(caller, request.key, request.size, request.flags);
  const bool makes = request.key == IPC_PRIVATE || (request.flags & IPC_CREAT);
  if (found || found.error().errno_or(EINVAL) != ENOENT || !makes) return answer(*reply, found);
  const FileId file = files_.add_nameless(caller);
  auto made = segments_.add(caller, request.key, request.size, request.flags, request.pid, file,
                            time(nullptr));
  if (!made) {
    files_.drop_nameless(file);
    return answer(*reply, made);
  }
  files_.extend(file, request.size, [this, reply, made = *made](const Status& grown) {
    if (grown) return answer(*reply, made);
    files_.drop_nameless(made.file);
    reply->fail(ENOMEM);
  });
}

void SegmentHome::attach(NodeId from, const SegmentRequest& request, const SharedCaller& caller,
                         Reply& reply) {
  auto attached = segments_.attach(caller, request.id, request.flags, request.pid, time(nullptr));
  if (attached) files_.use(attached->file, from);
  answer(reply, attached);
}

void SegmentHome::remove(const SegmentRequest& request, const SharedCaller& caller, Reply& reply) {
  auto removed = segments_.remove(caller, request.id);
  // A second IPC_RMID of a segment that still is attached changes nothing.
  if (removed) files_.drop_nameless(removed->file);
  answer(reply, removed);
}

void SegmentHome::count(std::vector<SegmentState> segments,
                        const std::function<void(std::vector<SegmentState>)>& counted) {
  auto states = std::make_shared<std::vector<SegmentState>>(std::move(segments));
  auto all = std::shared_ptr<void>(nullptr, [states, counted](void*) { counted(*states); });
  for (SegmentState& state : *states) {
    SegmentCount message;
    message.file = state.file;
    for (uint16_t i = 0; i < node_.node_count; ++i) {
      if (node_.messenger.is_failed(NodeId{i})) continue;
      node_.messenger.request(NodeId{i}, message, {},
                              [states, &state, all](const Result<std::string>& answer) {
                                if (answer) state.attached += PackedReader(*answer).get<uint64_t>();
                              });
    }
  }
}

}  // namespace krg
