// TaskMemory: reads and writes pages of another task's memory, whatever its mappings allow the task
// itself. The task does not run (meanwhile, and of no consequence to us).
//
// Owned by who moves the task's pages. Threads: any, one at a time. Nothing of the memory may be
// missing pages that the caller itself has to bring: it would wait for itself.
// Source: process_vm_readv(2), proc_pid_mem(5). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "krg/runtime/result.h"
#include "krg/runtime/types.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

struct MemoryPiece {
  RemoteAddr at;
  uint64_t bytes = 0;
};

class TaskMemory {
 public:
  // Errors: ESRCH; EACCES, EPERM: we may not trace it.
  static Result<TaskMemory> open(pid_t task);

  // The pieces' bytes, one after the other. Errors: ESRCH: the task has ended (it is never taken
  // for another that got its pid); EFAULT: something is not mapped. REQUIRES: the buffer is as long
  // as the pieces together.
  Status read(std::span<const MemoryPiece> pieces, std::span<std::byte> into) const;
  Status write(std::span<const MemoryPiece> pieces, std::span<const std::byte> from) const;

  // Readable once the task has ended.
  int pidfd() const { return pidfd_.get(); }

 private:
  TaskMemory(pid_t task, UniqueFd pidfd, UniqueFd memory)
      : task_(task), pidfd_(std::move(pidfd)), memory_(std::move(memory)) {}
  enum class Way { kRead, kWrite };
  Status transfer(Way way, std::span<const MemoryPiece> pieces, std::byte* bytes) const;
  Status transfer_by_file(Way way, MemoryPiece piece, std::byte* bytes) const;
  Status check_alive() const;

  pid_t task_;
  UniqueFd pidfd_, memory_;
};

}  // namespace krg
