// SPDX-License-Identifier: GPL-2.0-or-later
#include "message_queues.h"

#include <fmt/format.h>
#include <sys/syscall.h>

#include <cstring>
#include <limits>

namespace krg {
namespace {

// Names that glibc 2.36 has only for those who ask (linux/msg.h).
constexpr int kStatAny = 13;       // MSG_STAT_ANY
constexpr int kCopyFlag = 040000;  // MSG_COPY

}  // namespace

bool MessageQueues::Selector::matches(const Message& message) const {
  switch (kind) {
    case Kind::kAny:
      return true;
    case Kind::kEqual:
      return message.type == type;
    case Kind::kNotEqual:
      return message.type != type;
    case Kind::kLowestUpTo:
      return message.type <= type;
    case Kind::kNth:
      return false;
  }
  return false;
}

IpcDones MessageQueues::step(const IpcCall& call) {
  switch (call.number) {
    case SYS_msgget:
      return just(get(call));
    case SYS_msgsnd:
      return send(call);
    case SYS_msgrcv:
      return receive(call);
    case SYS_msgctl:
      return control(call);
    default:
      return just(ipc_failed(call.ticket, ENOSYS));
  }
}

IpcDone MessageQueues::get(const IpcCall& call) {
  return ipc_get(
      queues_, call, static_cast<int>(call.args[1]), [](const Queue&) { return 0; },
      [&](const IpcPermissions& permissions) {
        if (queues_.size() >= kMostQueues) return -ENOSPC;
        Queue queue;
        queue.permissions = permissions;
        queue.changed_s = call.now_s;
        return queues_.add(std::move(queue));
      });
}

IpcDones MessageQueues::send(const IpcCall& call) {
  const auto [id, type, size, flags] = call.args;
  const auto refuse = [&](int error) { return just(ipc_failed(call.ticket, error)); };
  if (id < 0 || size < 0 || size > kMostMessageBytes || type < 1) return refuse(EINVAL);
  if (static_cast<size_t>(size) != call.data.size()) return refuse(EINVAL);
  Queue* queue = queues_.find(id);
  if (queue == nullptr) return refuse(EINVAL);
  if (!may_access(queue->permissions, call.caller, kIpcAlter)) return refuse(EACCES);
  if (!queue->has_room(size)) {
    if (flags & IPC_NOWAIT) return refuse(EAGAIN);
    queue->senders.push_back(call);
    return {};
  }
  IpcDones done = just(ipc_done(call.ticket));
  queue->last_sender = call.caller.pid;
  put(*queue, {type, call.data}, call.now_s, done);
  return done;
}

// A receiver whose buffer is too small is told so; the message is for the next one.
void MessageQueues::put(Queue& queue, Message message, int64_t now_s, IpcDones& done) {
  queue.sent_s = now_s;
  queue.bytes += static_cast<int64_t>(message.text.size());
  queue.messages.push_back(std::move(message));
  for (auto at = queue.receivers.begin(); at != queue.receivers.end();) {
    auto answer =
        selector_of(*at).matches(queue.messages.back()) ? try_receive(queue, *at) : std::nullopt;
    if (!answer) {
      ++at;
      continue;
    }
    const bool taken = answer->error == 0;
    if (taken) queue.received_s = now_s;
    done.push_back(std::move(*answer));
    at = queue.receivers.erase(at);
    if (taken) return;
  }
}

MessageQueues::Selector MessageQueues::selector_of(const IpcCall& call) {
  const int64_t type = call.args[2], flags = call.args[3];
  using Kind = Selector::Kind;
  if (flags & kCopyFlag) return {Kind::kNth, type};
  if (type == 0) return {Kind::kAny, 0};
  if (type == std::numeric_limits<int64_t>::min())
    return {Kind::kLowestUpTo, std::numeric_limits<int64_t>::max()};
  if (type < 0) return {Kind::kLowestUpTo, -type};
  return {flags & MSG_EXCEPT ? Kind::kNotEqual : Kind::kEqual, type};
}

std::deque<MessageQueues::Message>::iterator MessageQueues::find_message(Queue& queue,
                                                                         const Selector& wanted) {
  auto& messages = queue.messages;
  if (wanted.kind == Selector::Kind::kNth) {
    const bool there = wanted.type >= 0 && wanted.type < static_cast<int64_t>(messages.size());
    return there ? messages.begin() + wanted.type : messages.end();
  }
  const auto matches = [&](const Message& message) { return wanted.matches(message); };
  if (wanted.kind != Selector::Kind::kLowestUpTo)
    return std::find_if(messages.begin(), messages.end(), matches);
  auto lowest =
      std::min_element(messages.begin(), messages.end(),
                       [](const Message& a, const Message& b) { return a.type < b.type; });
  return lowest != messages.end() && matches(*lowest) ? lowest : messages.end();
}

std::optional<IpcDone> MessageQueues::try_receive(Queue& queue, const IpcCall& call) {
  const int64_t size = call.args[1], flags = call.args[3];
  const auto message = find_message(queue, selector_of(call));
  if (message == queue.messages.end()) return std::nullopt;
  const auto bytes = static_cast<int64_t>(message->text.size());
  if (size < bytes && !(flags & MSG_NOERROR)) return ipc_failed(call.ticket, E2BIG);
  const int64_t given = std::min(size, bytes);
  std::string out = ipc_bytes(message->type) + message->text.substr(0, static_cast<size_t>(given));
  if (!(flags & kCopyFlag)) {
    queue.last_receiver = call.caller.pid;
    queue.bytes -= bytes;
    queue.messages.erase(message);
  }
  return ipc_done(call.ticket, given, std::move(out));
}

IpcDones MessageQueues::receive(const IpcCall& call) {
  const auto [id, size, type, flags] = call.args;
  const auto refuse = [&](int error) { return just(ipc_failed(call.ticket, error)); };
  if (id < 0 || size < 0) return refuse(EINVAL);
  if (flags & kCopyFlag && (flags & MSG_EXCEPT || !(flags & IPC_NOWAIT))) return refuse(EINVAL);
  Queue* queue = queues_.find(id);
  if (queue == nullptr) return refuse(EINVAL);
  if (!may_access(queue->permissions, call.caller, kIpcRead)) return refuse(EACCES);
  auto answer = try_receive(*queue, call);
  if (!answer) {
    if (flags & IPC_NOWAIT) return refuse(ENOMSG);
    queue->receivers.push_back(call);
    return {};
  }
  const bool taken = answer->error == 0 && !(flags & kCopyFlag);
  IpcDones done = just(std::move(*answer));
  if (!taken) return done;
  queue->received_s = call.now_s;
  admit_senders(*queue, call.now_s, done);
  return done;
}

// In order; one whose message is too long for the room there is does not keep the others waiting.
void MessageQueues::admit_senders(Queue& queue, int64_t now_s, IpcDones& done) {
  for (auto at = queue.senders.begin(); at != queue.senders.end();) {
    if (!queue.has_room(at->args[2])) {
      ++at;
      continue;
    }
    done.push_back(ipc_done(at->ticket));
    queue.last_sender = at->caller.pid;
    Message message{at->args[1], std::move(at->data)};
    at = queue.senders.erase(at);
    put(queue, std::move(message), now_s, done);
  }
}

bool MessageQueues::cancel(const IpcTicket& ticket) {
  bool found = false;
  const auto is_it = [&](const IpcCall& call) { return call.ticket == ticket; };
  queues_.for_each([&](int, Queue& queue) {
    found |= std::erase_if(queue.senders, is_it) + std::erase_if(queue.receivers, is_it) > 0;
  });
  return found;
}

void MessageQueues::node_failed(NodeId node) {
  const auto is_from_there = [&](const IpcCall& call) { return call.ticket.node == node; };
  queues_.for_each([&](int, Queue& queue) {
    std::erase_if(queue.senders, is_from_there);
    std::erase_if(queue.receivers, is_from_there);
  });
}

IpcDones MessageQueues::give_back(int64_t id, std::string_view message, int64_t now_s) {
  IpcDones done;
  Queue* queue = queues_.find(id);
  Message given;
  if (queue == nullptr || message.size() < sizeof given.type) return done;
  std::memcpy(&given.type, message.data(), sizeof given.type);
  given.text = message.substr(sizeof given.type);
  queue->bytes += static_cast<int64_t>(given.text.size());
  queue->messages.push_front(std::move(given));
  for (auto at = queue->receivers.begin(); at != queue->receivers.end();) {
    if (auto answer = try_receive(*queue, *at)) {
      queue->received_s = now_s;
      done.push_back(std::move(*answer));
      at = queue->receivers.erase(at);
    } else {
      ++at;
    }
  }
  return done;
}

IpcDones MessageQueues::control(const IpcCall& call) {
  const int command = static_cast<int>(call.args[1]);
  const auto refuse = [&](int error) { return just(ipc_failed(call.ticket, error)); };
  if (call.args[0] < 0) return refuse(EINVAL);
  if (command == IPC_INFO || command == MSG_INFO) return just(info(call, command == MSG_INFO));
  if (command == IPC_STAT || command == MSG_STAT || command == kStatAny)
    return just(stat(call, command));
  if (command != IPC_SET && command != IPC_RMID) return refuse(EINVAL);
  Queue* queue = queues_.find(call.args[0]);
  if (queue == nullptr) return refuse(EINVAL);
  if (!may_control(queue->permissions, call.caller)) return refuse(EPERM);
  return command == IPC_SET ? change(call, *queue)
                            : remove(call, static_cast<int>(call.args[0]), *queue);
}

IpcDones MessageQueues::change(const IpcCall& call, Queue& queue) {
  msqid_ds wanted;
  if (call.data.size() != sizeof wanted) return just(ipc_failed(call.ticket, EINVAL));
  std::memcpy(&wanted, call.data.data(), sizeof wanted);
  if (wanted.msg_qbytes > kMostQueueBytes && !has_capability(call.caller, CAP_SYS_RESOURCE))
    return just(ipc_failed(call.ticket, EPERM));
  take(queue.permissions, wanted.msg_perm);
  queue.most_bytes = static_cast<int64_t>(
      std::min(wanted.msg_qbytes, static_cast<msglen_t>(std::numeric_limits<int64_t>::max())));
  queue.changed_s = call.now_s;
  IpcDones done = just(ipc_done(call.ticket));
  // Who waits must still be allowed to.
  const auto drop_refused = [&](std::list<IpcCall>& waiting, mode_t mode) {
    std::erase_if(waiting, [&](const IpcCall& other) {
      if (may_access(queue.permissions, other.caller, mode)) return false;
      done.push_back(ipc_failed(other.ticket, EACCES));
      return true;
    });
  };
  drop_refused(queue.receivers, kIpcRead);
  drop_refused(queue.senders, kIpcAlter);
  admit_senders(queue, call.now_s, done);
  return done;
}

IpcDones MessageQueues::remove(const IpcCall& call, int id, Queue& queue) {
  IpcDones done = just(ipc_done(call.ticket));
  for (const auto* waiting : {&queue.receivers, &queue.senders})
    for (const IpcCall& other : *waiting) done.push_back(ipc_failed(other.ticket, EIDRM));
  queues_.remove(id);
  return done;
}

IpcDone MessageQueues::stat(const IpcCall& call, int command) {
  const int id = command == IPC_STAT ? static_cast<int>(call.args[0]) : queues_.id_at(call.args[0]);
  const Queue* queue = id < 0 ? nullptr : queues_.find(id);
  if (queue == nullptr) return ipc_failed(call.ticket, EINVAL);
  if (command != kStatAny && !may_access(queue->permissions, call.caller, kIpcRead))
    return ipc_failed(call.ticket, EACCES);
  msqid_ds out{};
  fill(out.msg_perm, queue->permissions, id);
  out.msg_stime = queue->sent_s;
  out.msg_rtime = queue->received_s;
  out.msg_ctime = queue->changed_s;
  out.__msg_cbytes = static_cast<unsigned long>(queue->bytes);
  out.msg_qnum = queue->messages.size();
  out.msg_qbytes = static_cast<msglen_t>(queue->most_bytes);
  out.msg_lspid = queue->last_sender;
  out.msg_lrpid = queue->last_receiver;
  return ipc_done(call.ticket, command == IPC_STAT ? 0 : id, ipc_bytes(out));
}

IpcDone MessageQueues::info(const IpcCall& call, bool in_use) {
  msginfo out{};
  out.msgmax = kMostMessageBytes;
  out.msgmnb = out.msgmap = out.msgtql = kMostQueueBytes;
  out.msgmni = kMostQueues;
  out.msgssz = 16;  // MSGSSZ and the next two: linux/msg.h
  out.msgseg = 0xffff;
  out.msgpool = static_cast<int>(kMostQueues * kMostQueueBytes / 1024);
  if (in_use) {
    out.msgpool = static_cast<int>(queues_.size());
    out.msgmap = out.msgtql = 0;
    queues_.for_each([&](int, const Queue& queue) {
      out.msgmap += static_cast<int>(queue.messages.size());
      out.msgtql += static_cast<int>(queue.bytes);
    });
  }
  return ipc_done(call.ticket, queues_.highest_index(), ipc_bytes(out));
}

// Source: proc_sysvipc(5), the columns of Linux.
std::string MessageQueues::text() {
  std::string text =
      "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid"
      "      stime      rtime      ctime\n";
  queues_.for_each([&](int id, const Queue& queue) {
    const IpcPermissions& p = queue.permissions;
    text += fmt::format(
        "{:10} {:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}\n", p.key,
        id, p.mode, queue.bytes, queue.messages.size(), queue.last_sender, queue.last_receiver,
        p.uid, p.gid, p.creator_uid, p.creator_gid, queue.sent_s, queue.received_s,
        queue.changed_s);
  });
  return text;
}

}  // namespace krg
