// SPDX-License-Identifier: GPL-2.0-or-later
#include "ipc_home.h"

#include <sys/syscall.h>

#include <ctime>

#include "ipc_messages.h"
#include "krg/runtime/log.h"
#include "packed_bytes.h"

namespace krg {
namespace {

using namespace ipc_messages;

// Identifiers of different homes differ by at least so many uses of each index.
constexpr int kSequencesPerHome = 1000;
constexpr int kBitsPerHome = 32;
// Of POSIX queues: their numbers are those of files, of which 1 is the directory.
constexpr int64_t kFirstQueue = 2;

int64_t real_time_s() {
  return static_cast<int64_t>(time(nullptr));
}

bool is_about_semaphores(int number) {
  return number == SYS_semget || number == SYS_semop || number == SYS_semtimedop ||
         number == SYS_semctl;
}

std::optional<IpcCall> call_of(NodeId from, const MakeCall& message, std::string_view payload) {
  const size_t group_bytes = message.group_count * sizeof(gid_t);
  if (payload.size() < group_bytes) return std::nullopt;
  IpcCall call;
  call.ticket = {from, message.ticket};
  call.caller = {message.pid, message.uid, message.gid, message.capabilities, {}};
  call.caller.groups.resize(message.group_count);
  if (group_bytes > 0) std::memcpy(call.caller.groups.data(), payload.data(), group_bytes);
  call.now_s = real_time_s();
  call.number = message.number;
  call.args = message.args;
  call.data = payload.substr(group_bytes);
  return call;
}

}  // namespace

NodeId ipc_home(const Messenger& messenger) {
  for (uint16_t i = 0; i < messenger.node_count(); ++i)
    if (!messenger.is_failed(NodeId{i})) return NodeId{i};
  return messenger.self();
}

IpcHome::IpcHome(NodeContext& node)
    : messenger_(node.messenger),
      semaphores_(node.self.value * kSequencesPerHome),
      queues_(node.self.value * kSequencesPerHome),
      posix_queues_((int64_t{node.self.value} << kBitsPerHome) + kFirstQueue) {
  Messenger& messenger = node.messenger;
  messenger.on_request<MakeCall>([this](NodeId from, const MakeCall& message,
                                        std::string_view payload, Messenger::Reply reply) {
    auto call = call_of(from, message, payload);
    if (!call) return reply.fail(EINVAL);
    on_call(std::move(*call), std::move(reply));
  });
  messenger.on<CancelCall>([this](NodeId from, const CancelCall& message, std::string_view) {
    cancel({from, message.ticket});
  });
  messenger.on<TakeBack>([this](NodeId from, const TakeBack& message, std::string_view payload) {
    log_debug("ipc", "a caller on node {} died while it was served", from.value);
    if (is_about_posix_queues(message.number))
      return answer(posix_queues_.give_back(message.object, payload));
    if (!is_about_semaphores(message.number))
      return answer(queues_.give_back(message.object, payload, real_time_s()));
    IpcCall call;
    call.args[0] = message.object;
    call.now_s = real_time_s();
    call.data = payload;
    answer(semaphores_.take_back(call));
  });
  messenger.on<ProcessEnded>([this](NodeId, const ProcessEnded& message, std::string_view) {
    posix_queues_.process_ended(message.pid);
    answer(semaphores_.process_ended(message.pid));
  });
  messenger.on_request<TellObjects>(
      [this](NodeId, const TellObjects& message, std::string_view, Messenger::Reply reply) {
        reply.ok(message.of_queues == 0   ? semaphores_.text()
                 : message.of_queues == 1 ? queues_.text()
                                          : posix_queues_.text());
      });
  messenger.on_request<SaveObjects>([this](NodeId, const SaveObjects&, std::string_view payload,
                                           Messenger::Reply reply) { save(payload, reply); });
  messenger.on_request<RestoreObjects>([this](NodeId from, const RestoreObjects& message,
                                              std::string_view payload, Messenger::Reply reply) {
    auto saved = SavedIpc::parse(payload);
    if (!saved) return reply.fail(saved.error());
    if (!message.drops) return restore(from, *saved, reply);
    drop(*saved);
    reply.ok();
  });
  messenger.on_peer_failure(alive_.guard([this](NodeId failed) { on_node_failure(failed); }));
}

void IpcHome::on_call(IpcCall call, Messenger::Reply reply) {
  waiting_.emplace(call.ticket, std::move(reply));
  if (is_about_posix_queues(call.number)) return answer(posix_queues_.step(call));
  answer(is_about_semaphores(call.number) ? semaphores_.step(call) : queues_.step(call));
}

void IpcHome::cancel(const IpcTicket& ticket) {
  if (semaphores_.cancel(ticket) || queues_.cancel(ticket) || posix_queues_.cancel(ticket))
    answer(just(ipc_failed(ticket, ECANCELED)));
}

void IpcHome::on_node_failure(NodeId failed) {
  std::erase_if(waiting_, [&](const auto& entry) { return entry.first.node == failed; });
  queues_.node_failed(failed);
  posix_queues_.node_failed(failed);
  answer(semaphores_.node_failed(failed));
}

void IpcHome::save(std::string_view payload, Messenger::Reply& reply) {
  PackedReader in(payload);
  std::set<pid_t> members, others;
  for (auto* pids : {&members, &others})
    for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) pids->insert(in.get<pid_t>());
  std::set<int64_t> held;
  for (auto left = in.get<uint32_t>(); left > 0 && in.ok(); --left) held.insert(in.get<int64_t>());
  const TakesIpc takes = takes_ipc_of(std::move(members), std::move(others));
  SavedIpc saved;
  std::vector<int64_t> numbers;
  if (auto done = semaphores_.save(takes, saved); !done) return reply.fail(done.error());
  if (auto done = queues_.save(takes, saved); !done) return reply.fail(done.error());
  if (auto done = posix_queues_.save(takes, held, saved, numbers); !done)
    return reply.fail(done.error());
  PackedWriter out;
  out.put_string(saved.serialize());
  for (int64_t number : numbers) out.put(number);
  reply.ok(out.take());
}

void IpcHome::restore(NodeId from, const SavedIpc& saved, Messenger::Reply& reply) {
  SavedIpc made;
  const auto fail = [&](const Error& why) {
    drop(made);
    reply.fail(why);
  };
  for (const SavedSemaphores& set : saved.semaphores) {
    if (auto done = semaphores_.restore(set, from); !done) return fail(done.error());
    made.semaphores.push_back(set);
  }
  for (const SavedMessageQueue& queue : saved.message_queues) {
    if (auto done = queues_.restore(queue); !done) return fail(done.error());
    made.message_queues.push_back(queue);
  }
  PackedWriter numbers;
  for (const SavedPosixQueue& queue : saved.posix_queues)
    numbers.put(posix_queues_.restore(queue, from));
  reply.ok(numbers.take());
}

// Those of a restart that has failed.
void IpcHome::drop(const SavedIpc& saved) {
  for (const SavedSemaphores& set : saved.semaphores) semaphores_.drop(set);
  for (const SavedMessageQueue& queue : saved.message_queues) queues_.drop(queue);
  for (const SavedPosixQueue& queue : saved.posix_queues) posix_queues_.drop(queue);
}

void IpcHome::answer(IpcDones done) {
  for (IpcDone& one : done) {
    auto found = waiting_.extract(one.ticket);
    if (found.empty()) continue;
    Messenger::Reply& reply = found.mapped();
    if (one.error != 0)
      reply.fail(one.error);
    else
      reply.ok(ipc_bytes(one.value) + one.data);
  }
  tell_of_posix_queues();
}

void IpcHome::tell_of_posix_queues() {
  for (const PosixQueueNotice& notice : posix_queues_.take_notices()) {
    QueueNotice message;
    message.process = notice.process;
    message.queue = notice.queue;
    message.how = notice.how;
    message.signal = notice.signal;
    message.value = notice.value;
    message.sender = notice.sender;
    message.sender_uid = notice.sender_uid;
    if (!messenger_.send(notice.node, message))
      log_debug("ipc", "node {} has failed", notice.node.value);
  }
  for (const auto& [node, queue] : posix_queues_.take_changes()) {
    QueueChanged message;
    message.queue = queue;
    if (!messenger_.send(node, message)) log_debug("ipc", "node {} has failed", node.value);
  }
}

}  // namespace krg
