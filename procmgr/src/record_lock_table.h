// RecordLockTable: locks of ranges of files, as fcntl(2) makes them, of owners on any node. Pure.
// A wait that would be for itself, through others' waits, is refused (EDEADLK).
// Threads: the loop's thread. Source: POSIX, fcntl(); fcntl(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <optional>
#include <vector>

#include "krg/procmgr/lock_holders.h"

namespace krg {

class RecordLockTable {
 public:
  struct Owner {
    NodeId node;
    uint64_t process = 0, description = 0;
    auto operator<=>(const Owner&) const = default;
  };
  struct Request {
    Owner owner;
    RecordLock lock;  // `pid`: what others are told
    bool waits = false;
    uint64_t operation = 0;     // names a wait of the owner's node for cancel()
    bool may_deadlock = false;  // it is looked whether it would wait for itself (POSIX locks)
  };
  using Done = std::function<void(Status)>;

  // F_SETLK: `done` runs when it is had, now or later, or with EAGAIN; EINTR after cancel(). Errors
  // also: EINVAL, a range that does not begin in the file; EDEADLK.
  void lock(uint64_t file, const Request& asked, Done done);
  // F_GETLK: a lock that keeps the owner from having it; F_UNLCK if none does.
  RecordLock blocking(uint64_t file, const Owner& owner, const RecordLock& wanted) const;
  // All that the owner has of the file.
  void release(uint64_t file, const Owner& owner);
  void cancel(NodeId node, uint64_t operation);
  // All that its owners have, and wait for.
  void forget_node(NodeId node);
  bool is_locked(uint64_t file) const { return files_.count(file) != 0; }

 private:
  struct Range {
    int64_t start, end;  // the last byte
    bool meets(const Range& other) const { return start <= other.end && other.start <= end; }
  };
  struct Held {
    Owner owner;
    Range range;
    int32_t type;
    pid_t pid;
  };
  struct Waiter {
    Request asked;
    Range range;
    Done done;
  };
  struct File {
    std::vector<Held> held;
    std::list<Waiter> waiters;  // in the order they came
  };

  static std::optional<Range> range_of(const RecordLock& lock);
  static const Held* in_the_way(const File& file, const Owner& owner, int32_t type, Range range);
  bool would_wait_for_itself(const File& file, const Request& asked, Range range) const;
  static void put(File& file, const Request& asked, Range range);
  void grant(uint64_t number);

  std::map<uint64_t, File> files_;  // with a lock or a waiter
};

}  // namespace krg
