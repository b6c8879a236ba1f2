// SPDX-License-Identifier: GPL-2.0-or-later
#include "posix_queues.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>

#include <climits>
#include <csignal>
#include <cstring>

namespace krg {
namespace {

// What a queue is charged for beside its texts (struct posix_msg_tree_node and a pointer).
constexpr int64_t kChargedForPriority = 48, kChargedForMessage = 8;
constexpr int64_t kHighestSignal = 64;
constexpr int64_t kStays = -1;

IpcDone refused(const IpcCall& call, int error) {
  return ipc_failed(call.ticket, error);
}

// Permissions as open(2) asks for them.
mode_t wanted_access(int64_t flags) {
  const int access = static_cast<int>(flags) & O_ACCMODE;
  return (access != O_WRONLY ? kIpcRead : 0) | (access != O_RDONLY ? kIpcAlter : 0);
}

bool is_allowed(const IpcPermissions& object, const IpcCaller& caller, mode_t wanted) {
  IpcCaller without = caller;
  without.capabilities = has_capability(caller, CAP_DAC_OVERRIDE) ? 1ull << CAP_IPC_OWNER : 0;
  return may_access(object, without, wanted);
}

bool is_owner(const IpcPermissions& object, const IpcCaller& caller) {
  return caller.uid == object.uid || has_capability(caller, CAP_FOWNER);
}

// 0, or what is wrong with it (simple_lookup, lookup_one_len).
int check_name(std::string_view name) {
  if (name.empty()) return ENOENT;
  if (name == "." || name == ".." || name.find('/') != name.npos) return EACCES;
  return name.size() > NAME_MAX ? ENAMETOOLONG : 0;
}

}  // namespace

int64_t PosixQueues::Queue::charged() const {
  const int64_t priorities = std::min(most_messages, kMostPriority);
  return most_messages * (message_bytes + kChargedForMessage) + priorities * kChargedForPriority;
}

IpcDones PosixQueues::step(const IpcCall& call) {
  switch (static_cast<PosixQueueOp>(call.number)) {
    case PosixQueueOp::kOpen:
      return just(open(call));
    case PosixQueueOp::kUnlink:
      return just(unlink(call));
    case PosixQueueOp::kList:
      return just(list(call));
    case PosixQueueOp::kLookUp: {
      const auto found = find_name(call.data);
      if (found == queues_.end()) return just(refused(call, ENOENT));
      return just(state_of(call, found->second, found->first));
    }
    default: {
      const auto found = queues_.find(call.args[0]);
      if (found == queues_.end()) return just(refused(call, EBADF));
      return step_on(call, found);
    }
  }
}

IpcDones PosixQueues::step_on(const IpcCall& call, Queues::iterator found) {
  Queue& queue = found->second;
  switch (static_cast<PosixQueueOp>(call.number)) {
    case PosixQueueOp::kSend:
      return send(call, found);
    case PosixQueueOp::kReceive:
      return receive(call, found);
    case PosixQueueOp::kNotify:
      return just(notify(call, queue));
    case PosixQueueOp::kStat:
      return just(state_of(call, queue, 0));
    case PosixQueueOp::kChange:
      return just(change(call, queue));
    case PosixQueueOp::kPoll: {
      if (call.args[1] != 0) queue.watchers.push_back(call.ticket.node);
      const int events = (queue.messages.empty() ? 0 : POLLIN | POLLRDNORM) |
                         (queue.is_full() ? 0 : POLLOUT | POLLWRNORM);
      return just(ipc_done(call.ticket, events));
    }
    case PosixQueueOp::kUse:
      return just(use(call, queue));
    case PosixQueueOp::kDrop:
      if (--queue.uses[call.ticket.node] <= 0) queue.uses.erase(call.ticket.node);
      drop_if_unused(found);
      return just(ipc_done(call.ticket));
    default:
      return just(refused(call, ENOSYS));
  }
}

PosixQueues::Queues::iterator PosixQueues::find_name(std::string_view name) {
  if (name.empty()) return queues_.end();
  return std::find_if(queues_.begin(), queues_.end(),
                      [&](const auto& entry) { return entry.second.name == name; });
}

IpcDone PosixQueues::open(const IpcCall& call) {
  PosixQueueLimits limits;
  if (call.data.size() < sizeof limits) return refused(call, EINVAL);
  std::memcpy(&limits, call.data.data(), sizeof limits);
  const std::string_view name = std::string_view(call.data).substr(sizeof limits);
  if (const int error = check_name(name)) return refused(call, error);
  const int64_t flags = call.args[0];
  const auto found = find_name(name);
  if (found == queues_.end())
    return flags & O_CREAT ? create(call, limits, name) : refused(call, ENOENT);
  if ((flags & O_CREAT) && (flags & O_EXCL)) return refused(call, EEXIST);
  if ((flags & O_ACCMODE) == O_ACCMODE) return refused(call, EINVAL);
  if (!is_allowed(found->second.permissions, call.caller, wanted_access(flags)))
    return refused(call, EACCES);
  ++found->second.uses[call.ticket.node];
  return ipc_done(call.ticket, found->first);
}

IpcDone PosixQueues::create(const IpcCall& call, const PosixQueueLimits& limits,
                            std::string_view name) {
  const bool privileged = has_capability(call.caller, CAP_SYS_RESOURCE);
  if (queues_.size() >= kMostQueues && !privileged) return refused(call, ENOSPC);
  Queue queue;
  queue.most_messages = call.args[2] < 0 ? kMessages : call.args[2];
  queue.message_bytes = call.args[2] < 0 ? kMessageBytes : call.args[3];
  if (queue.most_messages <= 0 || queue.message_bytes <= 0 ||
      queue.most_messages > (privileged ? kMostMessagesEver : kMostMessages) ||
      queue.message_bytes > (privileged ? kMostMessageBytesEver : kMessageBytes))
    return refused(call, EINVAL);
  int64_t charged = queue.charged();
  for (const auto& [number, other] : queues_)
    if (other.permissions.creator_uid == call.caller.uid) charged += other.charged();
  if (static_cast<uint64_t>(charged) > limits.most_bytes) return refused(call, EMFILE);
  queue.name = name;
  queue.permissions = {IPC_PRIVATE,     call.caller.uid, call.caller.uid,
                       call.caller.gid, call.caller.gid, static_cast<mode_t>(call.args[1] & 0777)};
  queue.accessed_s = queue.modified_s = queue.changed_s = call.now_s;
  queue.uses[call.ticket.node] = 1;
  const int64_t number = next_++;
  queues_.emplace(number, std::move(queue));
  return ipc_done(call.ticket, number);
}

IpcDone PosixQueues::unlink(const IpcCall& call) {
  if (const int error = check_name(call.data)) return refused(call, error);
  const auto found = find_name(call.data);
  if (found == queues_.end()) return refused(call, ENOENT);
  if (!is_owner(found->second.permissions, call.caller)) return refused(call, EPERM);
  found->second.name.clear();
  drop_if_unused(found);
  return ipc_done(call.ticket);
}

void PosixQueues::drop_if_unused(Queues::iterator found) {
  const Queue& queue = found->second;
  if (queue.name.empty() && queue.uses.empty() && queue.senders.empty() && queue.receivers.empty())
    queues_.erase(found);
}

IpcDone PosixQueues::use(const IpcCall& call, Queue& queue) {
  // krgd itself, for who has the right to it already, asks for no access.
  if (call.args[1] >= 0 && !is_allowed(queue.permissions, call.caller, wanted_access(call.args[1])))
    return refused(call, EACCES);
  ++queue.uses[call.ticket.node];
  return ipc_done(call.ticket);
}

IpcDones PosixQueues::send(const IpcCall& call, Queues::iterator found) {
  Queue& queue = found->second;
  if (call.args[1] < 0 || call.args[1] >= kMostPriority) return just(refused(call, EINVAL));
  if (static_cast<int64_t>(call.data.size()) > queue.message_bytes)
    return just(refused(call, EMSGSIZE));
  if (queue.is_full()) {
    if (call.args[2] != 0) return just(refused(call, EAGAIN));
    queue.senders.push_back(call);
    return {};
  }
  IpcDones done = just(ipc_done(call.ticket));
  queue.modified_s = call.now_s;
  if (put(queue, {static_cast<uint32_t>(call.args[1]), call.data}, done)) {
    if (queue.messages.size() == 1) tell_listener(found->first, queue, call.caller);
    changed(found->first, queue);
  }
  return done;
}

bool PosixQueues::put(Queue& queue, Message message, IpcDones& done, bool first) {
  const uint32_t priority = message.priority;
  queue.bytes += static_cast<int64_t>(message.text.size());
  const auto place =
      std::find_if(queue.messages.begin(), queue.messages.end(), [&](const Message& other) {
        return first ? other.priority <= priority : other.priority < priority;
      });
  queue.messages.insert(place, std::move(message));
  if (queue.receivers.empty()) return true;
  const IpcCall receiver = std::move(queue.receivers.front());
  queue.receivers.pop_front();
  done.push_back(take_first(queue, receiver));
  return false;
}

IpcDone PosixQueues::take_first(Queue& queue, const IpcCall& call) {
  const Message message = std::move(queue.messages.front());
  queue.messages.pop_front();
  const auto bytes = static_cast<int64_t>(message.text.size());
  queue.bytes -= bytes;
  queue.accessed_s = call.now_s;
  return ipc_done(call.ticket, bytes, ipc_bytes(message.priority) + message.text);
}

// Once, and not again until it asks anew.
void PosixQueues::tell_listener(int64_t number, Queue& queue, const IpcCaller& sender) {
  const auto listener = std::exchange(queue.listener, std::nullopt);
  if (!listener || listener->how == SIGEV_NONE) return;
  notices_.push_back({listener->node, number, listener->process, listener->how, listener->signal,
                      listener->value, sender.pid, sender.uid});
}

void PosixQueues::changed(int64_t number, Queue& queue) {
  for (NodeId node : std::exchange(queue.watchers, {})) changes_.emplace_back(node, number);
}

IpcDones PosixQueues::receive(const IpcCall& call, Queues::iterator found) {
  Queue& queue = found->second;
  if (call.args[1] < queue.message_bytes) return just(refused(call, EMSGSIZE));
  if (queue.messages.empty()) {
    if (call.args[2] != 0) return just(refused(call, EAGAIN));
    queue.receivers.push_back(call);
    return {};
  }
  IpcDones done = just(take_first(queue, call));
  if (!queue.senders.empty()) {
    const IpcCall sender = std::move(queue.senders.front());
    queue.senders.pop_front();
    done.push_back(ipc_done(sender.ticket));
    put(queue, {static_cast<uint32_t>(sender.args[1]), sender.data}, done);
    if (queue.messages.size() == 1) tell_listener(found->first, queue, sender.caller);
  }
  changed(found->first, queue);
  return done;
}

IpcDone PosixQueues::notify(const IpcCall& call, Queue& queue) {
  const auto how = static_cast<int>(call.args[1]);
  if (how < 0) {
    if (queue.listener && queue.listener->process == call.caller.pid) queue.listener.reset();
    return ipc_done(call.ticket);
  }
  if (how != SIGEV_NONE && how != SIGEV_SIGNAL && how != SIGEV_THREAD) return refused(call, EINVAL);
  if (how == SIGEV_SIGNAL && (call.args[2] < 0 || call.args[2] > kHighestSignal))
    return refused(call, EINVAL);
  if (queue.listener) return refused(call, EBUSY);
  queue.listener = Listener{call.ticket.node, call.caller.pid, how, static_cast<int>(call.args[2]),
                            call.args[3]};
  return ipc_done(call.ticket);
}

IpcDone PosixQueues::change(const IpcCall& call, Queue& queue) {
  const auto [number, mode, uid, gid] = call.args;
  IpcPermissions& permissions = queue.permissions;
  const bool may_give = has_capability(call.caller, CAP_CHOWN);
  if (mode != kStays && !is_owner(permissions, call.caller)) return refused(call, EPERM);
  if (uid != kStays && uid != permissions.uid && !may_give) return refused(call, EPERM);
  const bool own_group =
      is_owner(permissions, call.caller) && is_in_group(call.caller, static_cast<gid_t>(gid));
  if (gid != kStays && !own_group && !may_give) return refused(call, EPERM);
  if (mode != kStays) permissions.mode = static_cast<mode_t>(mode & 0777);
  if (uid != kStays) permissions.uid = permissions.creator_uid = static_cast<uid_t>(uid);
  if (gid != kStays) permissions.gid = permissions.creator_gid = static_cast<gid_t>(gid);
  queue.changed_s = call.now_s;
  return state_of(call, queue, 0);
}

IpcDone PosixQueues::list(const IpcCall& call) const {
  std::string names;
  for (const auto& [number, queue] : queues_)
    if (!queue.name.empty()) names.append(queue.name).push_back('\0');
  return ipc_done(call.ticket, 0, std::move(names));
}

std::string PosixQueues::text() const {
  std::string text = "name messages\n";
  for (const auto& [number, queue] : queues_)
    text += fmt::format("{} {}\n", queue.name.empty() ? "(unlinked)" : "/" + queue.name,
                        queue.messages.size());
  return text;
}

IpcDone PosixQueues::state_of(const IpcCall& call, const Queue& queue, int64_t value) {
  PosixQueueState state;
  state.most_messages = queue.most_messages;
  state.message_bytes = queue.message_bytes;
  state.messages = static_cast<int64_t>(queue.messages.size());
  state.bytes = queue.bytes;
  state.mode = queue.permissions.mode;
  state.uid = queue.permissions.uid;
  state.gid = queue.permissions.gid;
  state.links = queue.name.empty() ? 0 : 1;
  if (queue.listener) {
    state.notify = queue.listener->how;
    state.notify_signal = queue.listener->how == SIGEV_SIGNAL ? queue.listener->signal : 0;
    state.notify_pid = queue.listener->process;
  }
  state.accessed_s = queue.accessed_s;
  state.modified_s = queue.modified_s;
  state.changed_s = queue.changed_s;
  return ipc_done(call.ticket, value, ipc_bytes(state));
}

bool PosixQueues::cancel(const IpcTicket& ticket) {
  const auto is_it = [&](const IpcCall& call) { return call.ticket == ticket; };
  for (auto found = queues_.begin(); found != queues_.end(); ++found) {
    Queue& queue = found->second;
    if (std::erase_if(queue.senders, is_it) + std::erase_if(queue.receivers, is_it) == 0) continue;
    drop_if_unused(found);
    return true;
  }
  return false;
}

void PosixQueues::node_failed(NodeId node) {
  const auto is_from_there = [&](const IpcCall& call) { return call.ticket.node == node; };
  for (auto next = queues_.begin(); next != queues_.end();) {
    const auto found = next++;
    Queue& queue = found->second;
    std::erase_if(queue.senders, is_from_there);
    std::erase_if(queue.receivers, is_from_there);
    std::erase(queue.watchers, node);
    queue.uses.erase(node);
    if (queue.listener && queue.listener->node == node) queue.listener.reset();
    drop_if_unused(found);
  }
}

void PosixQueues::process_ended(pid_t process) {
  for (auto& [number, queue] : queues_)
    if (queue.listener && queue.listener->process == process) queue.listener.reset();
}

IpcDones PosixQueues::give_back(int64_t number, std::string_view message) {
  IpcDones done;
  Message given;
  const auto found = queues_.find(number);
  if (found == queues_.end() || message.size() < sizeof given.priority) return done;
  std::memcpy(&given.priority, message.data(), sizeof given.priority);
  given.text = message.substr(sizeof given.priority);
  if (put(found->second, std::move(given), done, true)) changed(number, found->second);
  return done;
}

}  // namespace krg
