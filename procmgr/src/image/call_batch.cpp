// SPDX-License-Identifier: GPL-2.0-or-later
#include "image/call_batch.h"

#include <sys/syscall.h>

#include <algorithm>

#include "call_registers.h"
#include "krg/procmgr/unnotified_cookie.h"

// Makes the calls from r12 to r13, then has the kernel stop the thread: tgkill(r14, r15, SIGTRAP).
// A `syscall` for a single call comes first.
asm(R"(
  .pushsection .rodata
krg_call_batch_code:
  syscall
1:
  cmp %r13, %r12
  jae 2f
  mov (%r12), %rax
  mov 8(%r12), %rdi
  mov 16(%r12), %rsi
  mov 24(%r12), %rdx
  mov 32(%r12), %r10
  mov 40(%r12), %r8
  mov 48(%r12), %r9
  syscall
  mov %rax, 56(%r12)
  add $64, %r12
  jmp 1b
2:
  mov $234, %eax
  mov %r14, %rdi
  mov %r15, %rsi
  mov $5, %edx
  mov %rbx, %r9
  syscall
krg_call_batch_end:
  ud2
krg_call_batch_code_end:
  .popsection
)");

namespace krg {
namespace {

extern "C" {
[[gnu::visibility("hidden")]] extern const char krg_call_batch_code[], krg_call_batch_end[],
    krg_call_batch_code_end[];
}

constexpr size_t kMostCalls = FrozenProcess::kCallsBytes / sizeof(FrozenCall);
static_assert(SYS_tgkill == 234 && SIGTRAP == 5);

std::span<const char> bytes_of(std::span<const FrozenCall> calls) {
  return {reinterpret_cast<const char*>(calls.data()), calls.size_bytes()};
}

}  // namespace

std::span<const char> call_batch_code() {
  return {krg_call_batch_code, krg_call_batch_code_end};
}

RemoteAddr CallBatch::put(std::span<const char> bytes) {
  // An error is told by run(), which asks again.
  if (auto scratch = process_.scratch(); scratch) base_ = scratch->value;
  const RemoteAddr at{base_ + data_.size()};
  data_.append(bytes.data(), bytes.size());
  data_.resize((data_.size() + 15) / 16 * 16);
  return at;
}

size_t CallBatch::add(long number, FrozenThread::Arguments arguments) {
  FrozenCall& call = calls_.emplace_back();
  call.number = static_cast<uint64_t>(number);
  call.arguments[5] = kUnnotifiedCookie;
  std::copy_n(arguments.begin(), std::min(arguments.size(), call.arguments.size()),
              call.arguments.begin());
  call.result = -ESRCH;
  return calls_.size() - 1;
}

Status CallBatch::run() {
  auto helpers = process_.helpers();
  if (!helpers) return helpers.error();
  if (data_.size() > FrozenProcess::kScratchBytes) return errno_error("arguments of calls", E2BIG);
  if (!data_.empty())
    if (auto put = process_.write(helpers->scratch, data_); !put) return put;
  for (size_t at = 0; at < calls_.size(); at += kMostCalls) {
    const auto some = std::span(calls_).subspan(at, std::min(kMostCalls, calls_.size() - at));
    if (auto run = run_in_code(*helpers, some); !run) return run;
  }
  if (data_.empty()) return {};
  return process_.read(helpers->scratch, data_);
}

Status CallBatch::run_in_code(const FrozenProcess::Helpers& helpers, std::span<FrozenCall> calls) {
  if (auto put = process_.write(helpers.calls, bytes_of(calls)); !put) return put;
  user_regs_struct registers =
      call_registers(thread_.registers(), helpers.code.value + kSyscallInstructionBytes, 0, {});
  registers.rbx = kUnnotifiedCookie;
  registers.r12 = helpers.calls.value;
  registers.r13 = helpers.calls.value + calls.size_bytes();
  registers.r14 = static_cast<uint64_t>(process_.pid());
  registers.r15 = static_cast<uint64_t>(thread_.tid());
  const RemoteAddr end =
      helpers.code + static_cast<uint64_t>(krg_call_batch_end - krg_call_batch_code);
  std::vector<siginfo_t> signals;
  if (!thread_.run_code(registers, end, signals)) return errno_error("the process died", ESRCH);
  auto read =
      process_.read(helpers.calls, {reinterpret_cast<char*>(calls.data()), calls.size_bytes()});
  if (!read) return read;
  give_back(signals, helpers.calls);
  return {};
}

// A process may say of itself what it likes about a signal's sender.
void CallBatch::give_back(const std::vector<siginfo_t>& signals, RemoteAddr room) {
  const auto pid = static_cast<uint64_t>(process_.pid()),
             tid = static_cast<uint64_t>(thread_.tid());
  for (const siginfo_t& info : signals)
    if (process_.write_value(room, info))
      process_.call_in(thread_, SYS_rt_tgsigqueueinfo, {pid, tid, SIGTRAP, room.value});
}

}  // namespace krg
