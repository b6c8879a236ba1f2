// The form in which a SavedIpc is kept. SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/saved_ipc.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "krg/procmgr/process_family.h"
#include "packed_bytes.h"
#include "text_scan.h"

namespace krg {
namespace {

constexpr uint8_t kIpcVersion = 1;
constexpr uint32_t kMostObjects = 1u << 20;  // what is malformed must not take memory
constexpr std::string_view kSegment = "sysv:";

void put(PackedWriter& out, const SavedMessage& message) {
  out.put(message.type).put_string(message.text);
}
void get(PackedReader& in, SavedMessage& message) {
  message.type = in.get<int64_t>();
  message.text = in.get_string();
}

void put(PackedWriter& out, const std::vector<int32_t>& numbers) {
  out.put(static_cast<uint32_t>(numbers.size()));
  for (int32_t number : numbers) out.put(number);
}
void get(PackedReader& in, std::vector<int32_t>& numbers) {
  const auto count = std::min(in.get<uint32_t>(), kMostObjects);
  for (uint32_t i = 0; i < count && in.ok(); ++i) numbers.push_back(in.get<int32_t>());
}

// Before what looks them up.
void put(PackedWriter& out, const SavedSemaphores::Undo&);
void get(PackedReader& in, SavedSemaphores::Undo&);
void put(PackedWriter& out, const SavedSemaphores&);
void get(PackedReader& in, SavedSemaphores&);
void put(PackedWriter& out, const SavedMessageQueue&);
void get(PackedReader& in, SavedMessageQueue&);
void put(PackedWriter& out, const SavedSegment&);
void get(PackedReader& in, SavedSegment&);
void put(PackedWriter& out, const SavedPosixQueue&);
void get(PackedReader& in, SavedPosixQueue&);

template <class T>
void put_all(PackedWriter& out, const std::vector<T>& all) {
  out.put(static_cast<uint32_t>(all.size()));
  for (const T& one : all) put(out, one);
}
template <class T>
void get_all(PackedReader& in, std::vector<T>& all) {
  const auto count = std::min(in.get<uint32_t>(), kMostObjects);
  for (uint32_t i = 0; i < count && in.ok(); ++i) get(in, all.emplace_back());
}

void put(PackedWriter& out, const SavedSemaphores::Undo& undo) {
  out.put(undo.pid);
  put(out, undo.adjustments);
}
void get(PackedReader& in, SavedSemaphores::Undo& undo) {
  undo.pid = in.get<pid_t>();
  get(in, undo.adjustments);
}

void put(PackedWriter& out, const SavedSemaphores& set) {
  out.put(set.object);
  put(out, set.values);
  put_all(out, set.undos);
}
void get(PackedReader& in, SavedSemaphores& set) {
  set.object = in.get<SavedIpcObject>();
  get(in, set.values);
  get_all(in, set.undos);
}

void put(PackedWriter& out, const SavedMessageQueue& queue) {
  out.put(queue.object).put(queue.most_bytes);
  put_all(out, queue.messages);
}
void get(PackedReader& in, SavedMessageQueue& queue) {
  queue.object = in.get<SavedIpcObject>();
  queue.most_bytes = in.get<uint64_t>();
  get_all(in, queue.messages);
}

void put(PackedWriter& out, const SavedSegment& segment) {
  out.put(segment.object).put(segment.bytes).put(segment.is_removed).put(segment.is_attached);
  out.put_string(segment.contents);
}
void get(PackedReader& in, SavedSegment& segment) {
  segment.object = in.get<SavedIpcObject>();
  segment.bytes = in.get<uint64_t>();
  segment.is_removed = in.get<uint32_t>();
  segment.is_attached = in.get<uint32_t>();
  segment.contents = in.get_string();
}

void put(PackedWriter& out, const SavedPosixQueue& queue) {
  out.put(queue.object).put_string(queue.name);
  out.put(queue.most_messages).put(queue.message_bytes);
  put_all(out, queue.messages);
}
void get(PackedReader& in, SavedPosixQueue& queue) {
  queue.object = in.get<SavedIpcObject>();
  queue.name = in.get_string();
  queue.most_messages = in.get<int64_t>();
  queue.message_bytes = in.get<int64_t>();
  get_all(in, queue.messages);
}

template <class T>
void move_all(std::vector<T>& to, std::vector<T>& from) {
  std::move(from.begin(), from.end(), std::back_inserter(to));
}

}  // namespace

void SavedIpc::append(SavedIpc other) {
  move_all(semaphores, other.semaphores);
  move_all(message_queues, other.message_queues);
  move_all(segments, other.segments);
  move_all(posix_queues, other.posix_queues);
}

std::string SavedIpc::serialize() const {
  PackedWriter out;
  out.put(kIpcVersion);
  put_all(out, semaphores);
  put_all(out, message_queues);
  put_all(out, segments);
  put_all(out, posix_queues);
  return out.take();
}

Result<SavedIpc> SavedIpc::parse(std::string_view bytes) {
  SavedIpc ipc;
  if (bytes.empty()) return ipc;
  PackedReader in(bytes);
  const auto version = in.get<uint8_t>();
  get_all(in, ipc.semaphores);
  get_all(in, ipc.message_queues);
  get_all(in, ipc.segments);
  get_all(in, ipc.posix_queues);
  const bool is_whole =
      std::all_of(ipc.semaphores.begin(), ipc.semaphores.end(), [](const SavedSemaphores& set) {
        return std::all_of(set.undos.begin(), set.undos.end(),
                           [&](const SavedSemaphores::Undo& undo) {
                             return undo.adjustments.size() == set.values.size();
                           });
      });
  if (version != kIpcVersion || !in.ok() || !in.at_end() || !is_whole)
    return errno_error("saved semaphores and queues", EBADMSG);
  return ipc;
}

std::string segment_memory_name(int id) {
  return fmt::format("{}{}{}", kSharedMemoryPrefix, kSegment, id);
}

int segment_of_memory(std::string_view name) {
  if (!name.starts_with(kSharedMemoryPrefix)) return -1;
  name.remove_prefix(kSharedMemoryPrefix.size());
  if (!name.starts_with(kSegment)) return -1;
  return to_number<int>(name.substr(kSegment.size())).value_or(-1);
}

}  // namespace krg
