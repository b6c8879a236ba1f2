// Which memory krgd reads and writes for a system call that it answers (syscall_filter.h): it
// cannot wait for a page of its own set, so a spread process's thread makes the call with memory
// that is always here (CallMemory). Pure. Source: the calls' manual pages.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/user.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "krg/runtime/types.h"
#include "spread/call_memory.h"

namespace krg {

struct CallArgument {
  enum class Use : uint8_t {
    kRead,
    kWritten,   // all of it, when the call succeeds
    kResult,    // `before` bytes and as many as the call's result says
    kOwnSize,   // as many as its first word says then
    kReadUpTo,  // of as many as there are, `bytes` at most: a string, say
  };
  unsigned index = 0;  // of the call's arguments
  uint64_t bytes = 0;
  Use use = Use::kRead;
  uint64_t before = 0;

  bool is_written() const { return use != Use::kRead && use != Use::kReadUpTo; }
};

// An argument of the call that a thread is in, while that call has other memory for it.
struct LentArgument {
  CallArgument argument;
  RemoteAddr from;  // where the program has it
  CallMemory::Loan memory;
};

uint64_t argument(const user_regs_struct& call, unsigned index);
void set_argument(user_regs_struct& call, unsigned index, uint64_t value);

// Those that are not null, of what krgd may answer; none: the kernel alone touches what they point
// to, or their size is not to be told (semctl's GETALL and SETALL, process_vm_readv).
std::vector<CallArgument> arguments_for_krgd(const user_regs_struct& call);
// How much of it was written by a call that succeeded with that result; `contents` as they are now.
uint64_t bytes_written(const CallArgument& argument, uint64_t result, std::string_view contents);

}  // namespace krg
