// SPDX-License-Identifier: GPL-2.0-or-later
#include "process_places.h"

#include <cstring>
#include <utility>

#include "krg/runtime/check.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

// An object of the set. A set's objects begin as zeros: so does who asks for a record that has just
// been removed.
struct Record {
  uint64_t node_and_one = 0;  // 0: there is none
};
static_assert(sizeof(Record) == kMinObjectBytes);

ObjectId object_of(pid_t pid) {
  return ObjectId{static_cast<uint64_t>(pid)};
}

}  // namespace

ProcessPlaces::ProcessPlaces(NodeContext& node, Kddm& kddm) : node_(node), kddm_(kddm) {
  const auto opened =
      kddm_.open_set(kProcessPlaces, {.object_bytes = sizeof(Record),
                                      .objects_per_manager = uint64_t{1} << node_.pids.shift(),
                                      .blocks_in_order = true});
  check(opened.has_value(), "a node has one process table");
}

void ProcessPlaces::tell(pid_t pid, NodeId where) {
  auto [telling, is_first] = telling_.try_emplace(pid);
  telling->second.wanted = where;
  if (is_first) tell_next(pid);
}

void ProcessPlaces::tell_next(pid_t pid) {
  Telling& telling = telling_.at(pid);
  telling.told = telling.wanted;
  if (telling.told == kNoNode)
    return kddm_.remove(kProcessPlaces, object_of(pid),
                        alive_.guard([this, pid] { on_told(pid); }));
  const Record record{uint64_t{telling.told.value} + 1};
  kddm_.set(kProcessPlaces, object_of(pid), {reinterpret_cast<const char*>(&record), sizeof record},
            alive_.guard([this, pid](const Status& set) {
              if (!set) log_debug("exec", "the place of {}: {}", pid, set.error().message());
              on_told(pid);
            }));
}

void ProcessPlaces::on_told(pid_t pid) {
  if (const Telling& telling = telling_.at(pid); telling.wanted != telling.told)
    return tell_next(pid);
  const auto told = telling_.extract(pid);
  for (const auto& known : told.mapped().waiting) known();
}

void ProcessPlaces::when_known(pid_t pid, std::function<void()> known) {
  auto found = telling_.find(pid);
  found == telling_.end() ? known() : found->second.waiting.push_back(std::move(known));
}

std::optional<NodeId> ProcessPlaces::copy_of(pid_t pid) const {
  const auto bytes = kddm_.find(kProcessPlaces, object_of(pid));
  Record record;
  if (bytes.size() != sizeof record) return std::nullopt;
  std::memcpy(&record, bytes.data(), sizeof record);
  if (record.node_and_one == 0 || record.node_and_one > node_.node_count) return std::nullopt;
  return NodeId{static_cast<uint16_t>(record.node_and_one - 1)};
}

void ProcessPlaces::fetch(pid_t pid) {
  kddm_.prefetch(kProcessPlaces, object_of(pid), 1);
}

void ProcessPlaces::forget_node(NodeId home) {
  std::vector<ObjectId> left;
  kddm_.for_each(kProcessPlaces, [&](ObjectId object, std::span<const std::byte>) {
    const GlobalPid pid{static_cast<pid_t>(object.value)};
    if (node_.pids.origin(pid) == home) left.push_back(object);
  });
  for (const ObjectId object : left) kddm_.remove(kProcessPlaces, object, [] {});
}

}  // namespace krg
