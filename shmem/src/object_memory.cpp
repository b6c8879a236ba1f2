// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/shmem/object_memory.h"

#include <cstring>
#include <unordered_map>

#include "krg/shmem/io_linker.h"

namespace krg {
namespace {

class ZeroLinker : public IoLinker {
 public:
  void first_touch(ObjectId, std::span<std::byte>, std::function<void(Status)> done) override {
    done({});
  }
};

class HeapMemory : public ObjectMemory {
 public:
  explicit HeapMemory(size_t object_bytes) : object_bytes_(object_bytes) {}
  std::span<std::byte> place(ObjectId object) override {
    auto& bytes = objects_[object.value];
    if (!bytes) bytes = std::make_unique<std::byte[]>(object_bytes_);  // zeroed
    return {bytes.get(), object_bytes_};
  }
  void protect(ObjectId) override {}
  void release(ObjectId object) override { objects_.erase(object.value); }

 private:
  const size_t object_bytes_;
  std::unordered_map<uint64_t, std::unique_ptr<std::byte[]>> objects_;
};

}  // namespace

void ObjectMemory::install(ObjectId first, size_t count, std::span<const std::byte> bytes) {
  const size_t each = bytes.size() / count;
  for (size_t i = 0; i < count; ++i)
    std::memcpy(place(ObjectId{first.value + i}).data(), bytes.data() + i * each, each);
}

std::unique_ptr<IoLinker> make_zero_linker() {
  return std::make_unique<ZeroLinker>();
}

std::unique_ptr<ObjectMemory> make_heap_memory(size_t object_bytes) {
  return std::make_unique<HeapMemory>(object_bytes);
}

}  // namespace krg
