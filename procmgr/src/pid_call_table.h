// The system calls that name another process and can be carried out on the node where it executes:
// which argument is the pid, what the kernel reads from and writes to the caller's memory. Pure.
// Source: the man page of each. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <span>

#include "stand_in.h"

namespace krg {

// A place in the caller's memory that a call reads or writes.
struct CallBuffer {
  static constexpr unsigned kNone = 6;
  unsigned arg = kNone;        // which argument points to it
  size_t bytes = 0;            // its size, or
  unsigned bytes_arg = kNone;  // the argument that tells it
  bool exists() const { return arg != kNone; }
};

struct PidCall {
  int number;
  const char* name;
  unsigned pid_arg;
  CallBuffer in = {}, out = {};
};

// The longest buffer that travels; longer ones are EINVAL (a processor mask of 32,768 bits).
inline constexpr size_t kMaxCallBuffer = 4096;

std::span<const PidCall> pid_calls();
// nullptr when `number` is not such a call.
const PidCall* find_pid_call(int number);
// How many bytes of `buffer` this very call means; 0 when it has none (a null pointer).
size_t bytes_of(const CallBuffer& buffer, const RawCall& call);

}  // namespace krg
