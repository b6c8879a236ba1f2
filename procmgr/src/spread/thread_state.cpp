// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/thread_state.h"

#include "call_registers.h"
#include "kernel_values.h"
#include "packed_bytes.h"

namespace krg {
namespace {

int64_t result_of(const user_regs_struct& registers) {
  return static_cast<int64_t>(registers.rax);
}

}  // namespace

Result<ThreadState> ThreadState::parse(std::string_view bytes) {
  PackedReader in(bytes);
  ThreadState state;
  state.registers = in.get<user_regs_struct>();
  state.extended_state = in.get_string();
  if (!in.ok() || !in.at_end()) return errno_error("state of a thread", EBADMSG);
  return state;
}

std::string ThreadState::serialize() const {
  PackedWriter out;
  out.put(registers).put_string(extended_state);
  return out.take();
}

Result<CapturedThreads> CapturedThreads::parse(std::string_view bytes) {
  PackedReader in(bytes);
  CapturedThreads all;
  while (!in.at_end()) {
    CapturedThread& thread = all[in.get<pid_t>()];
    thread.is_at_rest = in.get<uint8_t>() != 0;
    thread.is_in_call = in.get<uint8_t>() != 0;
    auto state = ThreadState::parse(in.get_string());
    if (!state) return state.error();
    thread.state = std::move(*state);
  }
  if (!in.ok()) return errno_error("states of threads", EBADMSG);
  return all;
}

std::string CapturedThreads::serialize() const {
  PackedWriter out;
  for (const auto& [tid, thread] : *this)
    out.put(tid)
        .put(static_cast<uint8_t>(thread.is_at_rest))
        .put(static_cast<uint8_t>(thread.is_in_call))
        .put_string(thread.state.serialize());
  return out.take();
}

user_regs_struct before_the_call(user_regs_struct registers) {
  registers.rip -= kSyscallInstructionBytes;
  registers.rax = registers.orig_rax;
  registers.orig_rax = kNoRestart;
  return registers;
}

bool is_to_be_restarted(const user_regs_struct& registers) {
  const int64_t result = result_of(registers);
  return static_cast<int64_t>(registers.orig_rax) >= 0 && result <= kRestartSystemCall &&
         result >= kRestartUnlessHandled;
}

bool is_remembered_by_kernel(const user_regs_struct& registers) {
  return static_cast<int64_t>(registers.orig_rax) >= 0 && result_of(registers) == kRestartBlock;
}

}  // namespace krg
