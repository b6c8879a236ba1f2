// PageBuffer: memory for copies of pages, in huge pages where the kernel has them: a copy into new
// small pages takes longer to make these than to copy. Threads: a value; letting go of one and
// making one: any.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <utility>

#include "krg/runtime/result.h"

namespace krg {

class PageBuffer {
 public:
  PageBuffer() = default;
  // Errors: ENOMEM.
  static Result<PageBuffer> make(uint64_t bytes) {
    if (bytes == 0) return PageBuffer();
    // Huge pages have to begin at a multiple of their size.
    const uint64_t room = bytes + kHuge;
    void* mapped = mmap(nullptr, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return errno_error("memory for copies of pages");
    madvise(mapped, room, MADV_HUGEPAGE);
    const auto start = reinterpret_cast<uint64_t>(mapped);
    PageBuffer made;
    made.mapped_ = mapped;
    made.room_ = room;
    made.skipped_ = (start + kHuge - 1) / kHuge * kHuge - start;
    return made;
  }
  // The same with anything in it: one that was let go, if it is long enough, whose pages need not
  // be made and cleared again. Errors: as above.
  static Result<PageBuffer> make_unclear(uint64_t bytes) {
    if (bytes >= kLeastKept) {
      const std::lock_guard lock(kept_mutex_);
      if (kept_.room_ >= bytes + kHuge) return std::exchange(kept_, PageBuffer());
    }
    return make(bytes);
  }
  static Result<PageBuffer> copy_of(std::string_view bytes) {
    auto made = make(bytes.size());
    if (made) bytes.copy(reinterpret_cast<char*>(made->get()), bytes.size());
    return made;
  }
  ~PageBuffer() {
    if (mapped_ && !keep()) munmap(mapped_, room_);
  }
  PageBuffer(PageBuffer&& other) noexcept { swap(other); }
  PageBuffer& operator=(PageBuffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* get() const { return static_cast<std::byte*>(mapped_) + skipped_; }

 private:
  static constexpr uint64_t kHuge = 2u << 20, kLeastKept = 1u << 20, kMostKept = 64u << 20;

  // The kernel may have its pages while nobody uses them.
  bool keep() {
    if (room_ < kLeastKept || room_ > kMostKept) return false;
    const std::lock_guard lock(kept_mutex_);
    if (kept_.room_ >= room_ || madvise(mapped_, room_, MADV_FREE) != 0) return false;
    swap(kept_);
    return mapped_ == nullptr;
  }
  void swap(PageBuffer& other) {
    std::swap(mapped_, other.mapped_);
    std::swap(room_, other.room_);
    std::swap(skipped_, other.skipped_);
  }
  void* mapped_ = nullptr;
  uint64_t room_ = 0, skipped_ = 0;

  static std::mutex kept_mutex_;
  static PageBuffer kept_;
};
inline std::mutex PageBuffer::kept_mutex_;
inline PageBuffer PageBuffer::kept_;

}  // namespace krg
