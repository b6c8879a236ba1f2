// PageFrames: the memory of one page set on this node: a memfd that programs map, and this
// process's own mapping of it. A page that is not here is a hole; touching it through our mapping
// makes it a page of zeros. Addresses stay valid when the set grows (it gets further mappings) and
// when it shrinks (memory of zeros takes the place of what is cut off).
//
// Threads: the loop's thread. Owned by the page set. Source: memfd_create(2), fallocate(2).
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"
#include "krg/shmem/ids.h"

namespace krg {

// The owner of one mapping of this process; unmaps it when it goes.
class Mapping {
 public:
  Mapping() = default;
  Mapping(void* address, size_t bytes) : bytes_(static_cast<std::byte*>(address), bytes) {}
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping();
  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

class PageFrames {
 public:
  // Errors: what memfd_create(2), ftruncate(2), mmap(2) say; EMFILE when half of this process's
  // descriptors are in use: the rest is for the memory of programs' children, which is not asked
  // for but comes.
  static Result<PageFrames> create(size_t pages);

  int memfd() const { return memfd_.get(); }
  size_t pages() const { return pages_; }
  // Errors: what ftruncate(2), mmap(2) say. What lies beyond a smaller end is gone.
  Status resize(size_t pages);
  // REQUIRES: page < pages().
  std::span<std::byte> page(PageIndex page) const;
  // Fills the holes among them with zeros, faster than by touching them. Returns whether there was
  // memory for that: else they stay holes.
  bool allocate(PageIndex first, size_t count);
  // Whether allocate() has done so, and no punch() since: a program's own may have undone it.
  bool are_allocated(PageIndex first, size_t count) const;
  // Gives pages from `first` on these bytes: faster than through page(), where they are holes.
  // Where there is no memory for them it waits for two seconds, then ends this process: so they are
  // allocated before, where the wait can be another's.
  void write(PageIndex first, std::span<const std::byte> bytes);
  // Makes them holes: they vanish from all programs' page tables, too.
  void punch(PageIndex first, size_t count);

 private:
  explicit PageFrames(UniqueFd memfd) : memfd_(std::move(memfd)) {}

  void note_allocated(PageIndex first, size_t count, bool are);
  // Maps the memfd, or zeros, at the addresses of these pages.
  Status show(size_t first_page, size_t end_page, bool memfd);

  UniqueFd memfd_;
  size_t pages_ = 0;
  std::vector<bool> allocated_;  // by page

  std::vector<Mapping> mappings_;  // one behind the other; together at least pages_
};

// Where what needs memory cannot be put off: a millisecond more, in which the kernel takes some
// from a program. After two seconds of `waits` this process ends (`why`, see check()).
void wait_for_memory(unsigned& waits, const char* why);

}  // namespace krg
