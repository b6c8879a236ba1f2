// FlockTable: flock(2) locks of files that only this node has: of krgfs files other than streams.
// Pure. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>

#include "krg/runtime/result.h"

namespace krg {

// What is asked of an open file; `owner` names it among those that lock the file.
struct FlockRequest {
  enum class What : uint8_t { kUnlock, kShared, kExclusive };
  uint64_t owner = 0;
  What what = What::kUnlock;
  bool waits = false;
};

class FlockTable {
 public:
  // `done` runs when it is had, now or later, or with EWOULDBLOCK. As the kernel does, another lock
  // of the same owner is given back first. `request` names a wait for cancel().
  void lock(uint64_t file, const FlockRequest& asked, uint64_t request,
            std::function<void(Status)> done);
  // The owner is closed.
  void release(uint64_t file, uint64_t owner);
  // Ends a wait with EINTR.
  void cancel(uint64_t request);
  bool is_locked(uint64_t file) const { return files_.count(file) != 0; }

 private:
  struct Waiter {
    FlockRequest asked;
    uint64_t request;
    std::function<void(Status)> done;
  };
  struct File {
    std::map<uint64_t, bool> owners;  // whether exclusively
    std::list<Waiter> waiters;        // in the order they came
  };

  static bool can_have(const File& file, const FlockRequest& asked);
  void grant(uint64_t number);

  std::map<uint64_t, File> files_;  // with an owner or a waiter
};

}  // namespace krg
