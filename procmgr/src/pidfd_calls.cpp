// SPDX-License-Identifier: GPL-2.0-or-later
#include "pidfd_calls.h"

#include <fcntl.h>
#include <sys/syscall.h>

#include "in_worker.h"
#include "stream_replies.h"

namespace krg {
namespace {

using Call = SyscallBroker::Call;

// Request to the node where a process was born: a pidfd of it, with one reference for the asking
// node. Reply: its HomeId; ESRCH, EINVAL: a thread.
struct PidfdOpen {
  static constexpr uint16_t kId = message_ids::kDescriptors + 24;
  uint8_t version = 1;
  uint8_t unused[3] = {};
  int32_t process = 0;
};
static_assert(sizeof(PidfdOpen) == 8);

}  // namespace

PidfdCalls::PidfdCalls(NodeContext& node, SyscallBroker& broker, SessionFs& fs, StreamTree& tree,
                       RemoteHome& home)
    : node_(node), fs_(fs), tree_(tree) {
  node_.messenger.on_request<PidfdOpen>([&node, &home](NodeId from, const PidfdOpen& asked,
                                                       std::string_view, Messenger::Reply reply) {
    UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, asked.process, 0)));
    if (!pidfd) return reply.fail(errno);
    const HomeId id =
        home.add_held_by(from, HomePipe::create_of_events(node.loop, std::move(pidfd)));
    reply.ok({reinterpret_cast<const char*>(&id), sizeof id});
  });
  broker.set_taker(SYS_pidfd_open, [this](Call& call) { return takes(call); });
}

bool PidfdCalls::takes(Call& call) {
  const auto process = static_cast<pid_t>(call.arg(0));
  const auto flags = static_cast<int>(call.arg(1));
  if (process <= 0 || node_.pids.is_local(GlobalPid{process}) || (flags & ~O_NONBLOCK) ||
      !fs_.is_serving())
    return false;
  const NodeId home = node_.pids.origin(GlobalPid{process});
  if (home.value >= node_.node_count) return false;
  PidfdOpen ask;
  ask.process = process;
  auto waiting = std::make_shared<Call>(std::move(call));
  node_.messenger.request(home, ask, {}, [this, waiting, home, process](Result<std::string> reply) {
    auto id = value_of<HomeId>(reply);
    if (!id)
      return waiting->fail(id.error().errno_or(ESRCH) == EHOSTDOWN ? ESRCH
                                                                   : id.error().errno_or(ESRCH));
    StreamSource source{home, *id};
    source.process = process;
    open(waiting, source);
  });
  return true;
}

void PidfdCalls::open(const std::shared_ptr<Call>& call, const StreamSource& source) {
  const FileId import = tree_.add_import(source, 0);
  const int flags = O_RDWR | (static_cast<int>(call->arg(1)) & O_NONBLOCK);
  in_worker(
      node_.workers,
      [this, import, flags] {
        return std::make_shared<Result<UniqueFd>>(tree_.open_import(import, false, flags));
      },
      [this, import, call](const std::shared_ptr<Result<UniqueFd>>& opened) {
        if (!*opened) {
          tree_.drop_import(import);
          return call->fail(EMFILE);
        }
        auto number = call->add_fd((*opened)->get());
        number ? call->succeed(*number) : call->fail(number.error().errno_or(EMFILE));
      });
}

}  // namespace krg
