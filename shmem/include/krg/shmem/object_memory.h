// ObjectMemory: where one set's objects have their bytes on this node. Kddm asks it for a place
// before bytes come, and tells it before they change hands, so that what shows them to others (page
// tables of programs, see page_set.h) follows first.
//
// Threads: the loop's thread. Owned by the set's options; outlives the open set.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "krg/shmem/ids.h"

namespace krg {

class ObjectMemory {
 public:
  virtual ~ObjectMemory() = default;
  // A place for the object's bytes, object_bytes long: zeros when it was not placed before, else
  // what it was. It stays valid until release().
  virtual std::span<std::byte> place(ObjectId object) = 0;
  // `bytes` came for `count` objects that have been placed, neighbours from `first` on.
  virtual void install(ObjectId first, size_t count, std::span<const std::byte> bytes);
  // The objects may be read here from now on, though nobody has asked to be told (a prefetch).
  virtual void readable(ObjectId /*first*/, size_t /*count*/) {}
  // Nobody may write the object's bytes from here on (a grab comes before the next write): they are
  // about to be sent, or stay as a copy beside others. Called before the bytes are read.
  virtual void protect(ObjectId object) = 0;
  // The bytes are not valid any more: nobody may see them once settle() has returned, or place()
  // for the same object.
  virtual void release(ObjectId object) = 0;
  // Called before anybody else can hear of releases.
  virtual void settle() {}
};

// Ordinary memory of this process, one allocation an object.
std::unique_ptr<ObjectMemory> make_heap_memory(size_t object_bytes);

}  // namespace krg
