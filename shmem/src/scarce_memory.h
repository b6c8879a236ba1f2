// ScarceMemory: an ObjectMemory that may have no room for bytes when they come. The server lets
// their message wait then.
//
// Threads: the loop's thread. Owned by the set's options. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>

#include "krg/shmem/object_memory.h"

namespace krg {

class ScarceMemory : public ObjectMemory {
 public:
  // Bytes have come for `count` neighbours from `first` on, for some of which there may be no place
  // yet. Whether there is memory for them; if not, this is asked again.
  virtual bool make_room(ObjectId first, size_t count) = 0;
};

}  // namespace krg
