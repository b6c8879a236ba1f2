// FamilyMemory: memory that members of a stopped family share with each other: /dev/zero, memfds
// and files of /dev/shm, mapped shared. Each page of it is had once, as a page of one member that
// has it mapped and may write it: when all of them have the memory mapped again, it is put there
// for all.
//
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "family/page_buffer.h"
#include "image/process_image.h"
#include "krg/procmgr/page_range.h"
#include "krg/procmgr/process_family.h"

namespace krg {

// Pages with their contents, one after the other; sorted.
struct CopiedPages {
  std::vector<PageRange> ranges;
  std::vector<uint64_t> offsets;  // of each, in `bytes`
  PageBuffer bytes;
  // A thread that may still write into a part of `bytes` that has none of the pages; ends first.
  std::shared_ptr<const void> writer = {};
  // All of `wanted`, where it lies so here, one after the other; else null.
  const std::byte* find_all(std::span<const PageRange> wanted) const;
  // Null: it is not there.
  const std::byte* find(RemoteAddr at) const;
  // Errors: EFAULT. REQUIRES: `wanted` do not cross the bounds of `ranges`.
  Status read(std::span<const PageRange> wanted, std::span<std::byte> into) const;
};

// So much is copied while a family stands, on each node.
inline constexpr uint64_t kMostSharedBytes = 2ULL << 30;

// Single pages, in whatever order.
class FoundPages {
 public:
  void add(uint64_t address, const std::byte* page);
  size_t bytes() const { return bytes_.size(); }
  // Gives them up. Errors: ENOMEM.
  Result<CopiedPages> copy() &&;

 private:
  std::vector<uint64_t> addresses_;
  std::string bytes_;
};

class FamilyMemory {
 public:
  void add(uint32_t member, const ProcessImage& image);
  // For each member what it is to be asked for. `may_have`: whether a process that has the memory
  // mapped is none to care about. Errors: ENOTSUP: it is too much, or others have it, too; ESRCH.
  Result<std::vector<CopiedPages>> copy(uint32_t members,
                                        const std::function<bool(pid_t)>& may_have);

 private:
  struct Piece {
    std::string name;  // kSharedMemoryPrefix…
    uint64_t offset = 0, bytes = 0;
    RemoteAddr start;
    uint32_t member = 0;
    pid_t pid = 0;
    bool is_writable = false;
  };
  Status check_others(const std::function<bool(pid_t)>& may_have) const;
  static Status read(const Piece& piece, std::vector<bool>& taken, FoundPages& found);

  std::vector<Piece> pieces_;
};

}  // namespace krg
