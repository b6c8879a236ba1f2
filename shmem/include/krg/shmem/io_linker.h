// IoLinker: what a set's objects mean to the world outside of the nodes' memory: what a first touch
// yields, where an object is written back to, what a removal means there.
//
// Threads: called in the loop's thread; completes at once or later, in the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "krg/runtime/result.h"
#include "krg/shmem/ids.h"

namespace krg {

class IoLinker {
 public:
  virtual ~IoLinker() = default;
  // Fills `bytes` (the set's object size, zeroed) with the object's first content, on the node that
  // owns it. `bytes` stays valid until `done`. After an error the object counts as lost until it is
  // removed.
  virtual void first_touch(ObjectId object, std::span<std::byte> bytes,
                           std::function<void(Status)> done) = 0;
  // Writes the object back to where it is kept (Kddm::sync). `bytes` stays valid, and nobody writes
  // it, until `done`. On the node that owns it or got ownership promised last.
  virtual void sync(ObjectId, std::span<const std::byte>, std::function<void(Status)> done) {
    done({});
  }
  // The object has been removed (Kddm::remove); on the node that owned it.
  virtual void removed(ObjectId) {}
};

// Objects start as zeros and leave no trace.
std::unique_ptr<IoLinker> make_zero_linker();

}  // namespace krg
