// SPDX-License-Identifier: GPL-2.0-or-later
#include "record_lock_table.h"

#include <algorithm>
#include <set>

namespace krg {

namespace {
constexpr int64_t kLastByte = std::numeric_limits<int64_t>::max();
}

// A negative length: the bytes before the start.
std::optional<RecordLockTable::Range> RecordLockTable::range_of(const RecordLock& lock) {
  if (lock.start < 0) return {};
  if (lock.length == 0) return Range{lock.start, kLastByte};
  if (lock.length < 0)
    return lock.start + lock.length < 0
               ? std::nullopt
               : std::optional(Range{lock.start + lock.length, lock.start - 1});
  if (lock.length - 1 > kLastByte - lock.start) return {};
  return Range{lock.start, lock.start + lock.length - 1};
}

const RecordLockTable::Held* RecordLockTable::in_the_way(const File& file, const Owner& owner,
                                                         int32_t type, Range range) {
  for (const Held& held : file.held)
    if (held.owner != owner && held.range.meets(range) && (type == F_WRLCK || held.type == F_WRLCK))
      return &held;
  return nullptr;
}

bool RecordLockTable::would_wait_for_itself(const File& file, const Request& asked,
                                            Range range) const {
  std::vector<Owner> awaited;
  std::set<Owner> known;
  const auto add = [&](const File& of, const Request& waits, Range where) {
    for (const Held& held : of.held)
      if (held.owner != waits.owner && held.range.meets(where) &&
          (waits.lock.type == F_WRLCK || held.type == F_WRLCK) && known.insert(held.owner).second)
        awaited.push_back(held.owner);
  };
  add(file, asked, range);
  while (!awaited.empty()) {
    const Owner owner = awaited.back();
    awaited.pop_back();
    for (const auto& [number, other] : files_)
      for (const Waiter& waiter : other.waiters)
        if (waiter.asked.owner == owner) add(other, waiter.asked, waiter.range);
  }
  return known.contains(asked.owner);
}

// In the place of what the owner has had there; neighbours of one type become one.
void RecordLockTable::put(File& file, const Request& asked, Range range) {
  const int32_t type = asked.lock.type;
  std::vector<Held> kept;
  for (const Held& held : file.held) {
    const bool joins = held.owner == asked.owner && held.type == type && type != F_UNLCK &&
                       (held.range.meets(range) ||
                        (held.range.end != kLastByte && held.range.end + 1 == range.start) ||
                        (range.end != kLastByte && range.end + 1 == held.range.start));
    if (joins) {
      range = {std::min(range.start, held.range.start), std::max(range.end, held.range.end)};
      continue;
    }
    if (held.owner != asked.owner || !held.range.meets(range)) {
      kept.push_back(held);
      continue;
    }
    if (held.range.start < range.start)
      kept.push_back({held.owner, {held.range.start, range.start - 1}, held.type, held.pid});
    if (held.range.end > range.end)
      kept.push_back({held.owner, {range.end + 1, held.range.end}, held.type, held.pid});
  }
  if (type != F_UNLCK) kept.push_back({asked.owner, range, type, asked.lock.pid});
  file.held = std::move(kept);
}

void RecordLockTable::lock(uint64_t number, const Request& asked, Done done) {
  const auto range = range_of(asked.lock);
  if (!range) return done(errno_error("a range before the file", EINVAL));
  File& file = files_[number];
  if (asked.lock.type == F_UNLCK || !in_the_way(file, asked.owner, asked.lock.type, *range)) {
    put(file, asked, *range);
    done({});
  } else if (asked.waits && asked.may_deadlock && would_wait_for_itself(file, asked, *range)) {
    done(errno_error("a wait for itself", EDEADLK));
  } else if (asked.waits) {
    file.waiters.push_back({asked, *range, std::move(done)});
  } else {
    done(errno_error("locked by another", EAGAIN));
  }
  grant(number);
}

RecordLock RecordLockTable::blocking(uint64_t number, const Owner& owner,
                                     const RecordLock& wanted) const {
  RecordLock none = wanted;
  none.type = F_UNLCK;
  const auto file = files_.find(number);
  const auto range = range_of(wanted);
  if (file == files_.end() || !range) return none;
  const Held* held = in_the_way(file->second, owner, wanted.type, *range);
  if (!held) return none;
  const bool is_open = held->range.end == kLastByte;
  return {held->range.start, is_open ? 0 : held->range.end - held->range.start + 1, held->type,
          held->pid};
}

void RecordLockTable::release(uint64_t number, const Owner& owner) {
  auto file = files_.find(number);
  if (file == files_.end()) return;
  std::erase_if(file->second.held, [&](const Held& held) { return held.owner == owner; });
  grant(number);
}

void RecordLockTable::cancel(NodeId node, uint64_t operation) {
  for (auto& [number, file] : files_) {
    auto waiter = std::find_if(file.waiters.begin(), file.waiters.end(), [&](const Waiter& one) {
      return one.asked.owner.node == node && one.asked.operation == operation;
    });
    if (waiter == file.waiters.end()) continue;
    const Done done = std::move(waiter->done);
    const uint64_t changed = number;
    file.waiters.erase(waiter);
    done(errno_error("interrupted", EINTR));
    return grant(changed);
  }
}

void RecordLockTable::forget_node(NodeId node) {
  std::vector<uint64_t> numbers;
  for (auto& [number, file] : files_) {
    std::erase_if(file.held, [&](const Held& held) { return held.owner.node == node; });
    std::erase_if(file.waiters,
                  [&](const Waiter& waiter) { return waiter.asked.owner.node == node; });
    numbers.push_back(number);
  }
  for (uint64_t number : numbers) grant(number);
}

// Whoever can have what it waits for, in the order they came.
void RecordLockTable::grant(uint64_t number) {
  auto found = files_.find(number);
  if (found == files_.end()) return;
  File& file = found->second;
  std::vector<Done> granted;
  for (auto waiter = file.waiters.begin(); waiter != file.waiters.end();) {
    const Request& asked = waiter->asked;
    if (in_the_way(file, asked.owner, asked.lock.type, waiter->range)) {
      ++waiter;
      continue;
    }
    put(file, asked, waiter->range);
    granted.push_back(std::move(waiter->done));
    waiter = file.waiters.erase(waiter);
  }
  if (file.held.empty() && file.waiters.empty()) files_.erase(found);
  for (const Done& done : granted) done({});
}

}  // namespace krg
