// Objects of the home as checkpoints have them. Who waits has been stopped, and asks again.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>

#include "message_queues.h"
#include "posix_queues.h"
#include "semaphore_sets.h"

namespace krg {
namespace {

SavedIpcObject saved_object(int id, const IpcPermissions& p) {
  SavedIpcObject object;
  object.id = id;
  object.key = p.key;
  object.uid = p.uid;
  object.gid = p.gid;
  object.creator_uid = p.creator_uid;
  object.creator_gid = p.creator_gid;
  object.mode = p.mode & 0777;
  return object;
}

IpcPermissions permissions_of(const SavedIpcObject& object) {
  return {object.key, object.uid,         object.creator_uid,
          object.gid, object.creator_gid, static_cast<mode_t>(object.mode)};
}

// What is left over under the same identifier and key is replaced.
template <class Object>
Status make_room(IpcTable<Object>& table, const SavedIpcObject& object, std::string_view kind) {
  const int there = table.id_at(object.id & ((1 << IpcTable<Object>::kIndexBits) - 1));
  const int of_key = object.key == IPC_PRIVATE ? -1 : table.id_of_key(object.key);
  const bool is_same = there == object.id && table.find(there)->permissions.key == object.key;
  if ((there >= 0 && !is_same) || (of_key >= 0 && of_key != object.id))
    return errno_error(fmt::format("{} {}: others of this system have its identifier or key (ipcs "
                                   "shows them)",
                                   kind, object.id),
                       EEXIST);
  if (is_same) table.remove(object.id);
  return {};
}

}  // namespace

Status SemaphoreSets::save(const TakesIpc& takes, SavedIpc& into) {
  Status outcome;
  sets_.for_each([&](int id, const Set& set) {
    if (!outcome) return;
    SavedSemaphores saved{.object = saved_object(id, set.permissions), .values = {}, .undos = {}};
    std::vector<pid_t> users;
    for (const Semaphore& semaphore : set.semaphores) {
      saved.values.push_back(semaphore.value);
      users.push_back(semaphore.last_pid);
    }
    const auto is_wanted = takes(fmt::format("System V semaphores {}", id), users);
    if (!is_wanted) outcome = is_wanted.error();
    if (!is_wanted || !*is_wanted) return;
    for (const auto& [pid, undo] : undos_)
      if (const auto found = undo.adjustments.find(id); found != undo.adjustments.end())
        saved.undos.push_back({pid, {found->second.begin(), found->second.end()}});
    into.semaphores.push_back(std::move(saved));
  });
  return outcome;
}

Status SemaphoreSets::restore(const SavedSemaphores& saved, NodeId node) {
  if (auto room = make_room(sets_, saved.object, "System V semaphores"); !room) return room;
  Set set;
  set.permissions = permissions_of(saved.object);
  for (int32_t value : saved.values) set.semaphores.push_back({value, 0});
  semaphore_count_ += static_cast<int64_t>(saved.values.size());
  sets_.insert(saved.object.id, std::move(set));
  for (auto& [pid, undo] : undos_) undo.adjustments.erase(saved.object.id);
  for (const SavedSemaphores::Undo& one : saved.undos) {
    Undo& undo = undos_[one.pid];
    undo.node = node;
    undo.adjustments[saved.object.id].assign(one.adjustments.begin(), one.adjustments.end());
  }
  return {};
}

void SemaphoreSets::drop(const SavedSemaphores& saved) {
  if (sets_.find(saved.object.id) == nullptr) return;
  semaphore_count_ -= static_cast<int64_t>(saved.values.size());
  sets_.remove(saved.object.id);
  for (auto& [pid, undo] : undos_) undo.adjustments.erase(saved.object.id);
}

Status MessageQueues::save(const TakesIpc& takes, SavedIpc& into) {
  Status outcome;
  queues_.for_each([&](int id, const Queue& queue) {
    if (!outcome) return;
    const auto is_wanted = takes(fmt::format("System V message queue {}", id),
                                 {queue.last_sender, queue.last_receiver});
    if (!is_wanted) outcome = is_wanted.error();
    if (!is_wanted || !*is_wanted) return;
    SavedMessageQueue saved{.object = saved_object(id, queue.permissions),
                            .most_bytes = static_cast<uint64_t>(queue.most_bytes),
                            .messages = {}};
    for (const Message& message : queue.messages)
      saved.messages.push_back({message.type, message.text});
    into.message_queues.push_back(std::move(saved));
  });
  return outcome;
}

Status MessageQueues::restore(const SavedMessageQueue& saved) {
  if (auto room = make_room(queues_, saved.object, "System V message queue"); !room) return room;
  Queue queue;
  queue.permissions = permissions_of(saved.object);
  queue.most_bytes = static_cast<int64_t>(saved.most_bytes);
  for (const SavedMessage& message : saved.messages) {
    queue.bytes += static_cast<int64_t>(message.text.size());
    queue.messages.push_back({message.type, message.text});
  }
  queues_.insert(saved.object.id, std::move(queue));
  return {};
}

void MessageQueues::drop(const SavedMessageQueue& saved) {
  if (queues_.find(saved.object.id) != nullptr) queues_.remove(saved.object.id);
}

Status PosixQueues::save(const TakesIpc& takes, const std::set<int64_t>& held, SavedIpc& into,
                         std::vector<int64_t>& numbers) {
  for (const auto& [number, queue] : queues_) {
    if (!held.contains(number)) {
      if (queue.name.empty()) continue;  // somebody else's
      const auto is_wanted = takes("POSIX message queue /" + queue.name, {});
      if (!is_wanted) return is_wanted.error();
      if (!*is_wanted) continue;
    }
    if (queue.listener)
      return errno_error(
          fmt::format("POSIX message queue /{}: a process is to be told of its next message",
                      queue.name),
          ENOTSUP);
    SavedPosixQueue saved{.object = saved_object(-1, queue.permissions),
                          .name = queue.name,
                          .most_messages = queue.most_messages,
                          .message_bytes = queue.message_bytes,
                          .messages = {}};
    for (const Message& message : queue.messages)
      saved.messages.push_back({message.priority, message.text});
    into.posix_queues.push_back(std::move(saved));
    numbers.push_back(number);
  }
  return {};
}

int64_t PosixQueues::restore(const SavedPosixQueue& saved, NodeId node) {
  drop(saved);
  Queue queue;
  queue.name = saved.name;
  queue.permissions = permissions_of(saved.object);
  queue.most_messages = saved.most_messages;
  queue.message_bytes = saved.message_bytes;
  for (const SavedMessage& message : saved.messages) {
    queue.bytes += static_cast<int64_t>(message.text.size());
    queue.messages.push_back({static_cast<uint32_t>(message.type), message.text});
  }
  queue.uses[node] = 1;
  const int64_t number = next_++;
  queues_.emplace(number, std::move(queue));
  return number;
}

void PosixQueues::drop(const SavedPosixQueue& saved) {
  const auto found = find_name(saved.name);
  if (found == queues_.end()) return;
  found->second.name.clear();
  drop_if_unused(found);
}

}  // namespace krg
