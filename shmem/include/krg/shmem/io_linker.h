// IoLinker: what a set's objects mean to the world outside of the nodes' memory: what a first touch
// yields, where an object goes that is removed.
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
};

// Objects start as zeros and leave no trace.
std::unique_ptr<IoLinker> make_zero_linker();

}  // namespace krg
