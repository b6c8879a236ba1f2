// SPDX-License-Identifier: GPL-2.0-or-later
#include <elf.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <ctime>

#include "image/call_batch.h"
#include "image/capture_parts.h"
#include "kernel_values.h"
#include "process_spec.h"
#include "processor_numbers.h"
#include "whole_file.h"

namespace krg {
namespace {

constexpr size_t kMostExtendedState = 64u << 10;
constexpr int kGetRseq = 0x420f;  // PTRACE_GET_RSEQ_CONFIGURATION, not in every header

struct RseqConfiguration {  // struct ptrace_rseq_configuration
  uint64_t pointer;
  uint32_t size, signature, flags, padding;
};

Status read_by_ptrace(pid_t tid, ImageThread& image) {
  image.extended_state.resize(kMostExtendedState);
  iovec state{image.extended_state.data(), image.extended_state.size()};
  if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &state) != 0)
    return errno_error("the process died", ESRCH);
  image.extended_state.resize(state.iov_len);
  RseqConfiguration rseq{};
  if (ptrace(static_cast<__ptrace_request>(kGetRseq), tid, sizeof rseq, &rseq) > 0) {
    image.rseq = rseq.pointer;
    image.rseq_bytes = rseq.size;
    image.rseq_signature = rseq.signature;
  }
  void* robust_list = nullptr;
  if (syscall(SYS_get_robust_list, tid, &robust_list, &image.robust_list_bytes) == 0)
    image.robust_list = reinterpret_cast<uint64_t>(robust_list);
  return {};
}

// What only the thread itself is told.
Status read_by_its_calls(FrozenProcess& process, FrozenThread& thread, ImageThread& image) {
  CallBatch batch(process, thread);
  const RemoteAddr stack_at = batch.put(stack_t{}), address_at = batch.put(uint64_t{0});
  const size_t stack = batch.add(SYS_sigaltstack, {0, stack_at.value});
  const size_t tid = batch.add(SYS_prctl, {PR_GET_TID_ADDRESS, address_at.value});
  const RemoteAddr counter_at = batch.put(image.counter_access);
  const RemoteAddr parent_end_at = batch.put(image.parent_end_signal);
  batch.add(SYS_prctl, {PR_GET_TSC, counter_at.value});
  batch.add(SYS_prctl, {PR_GET_PDEATHSIG, parent_end_at.value});
  const size_t errors = batch.add(SYS_prctl, {PR_MCE_KILL_GET, 0, 0, 0, 0});
  const size_t speculation = errors + 1;
  for (uint64_t what = 0; what < image.speculation.size(); ++what)
    batch.add(SYS_prctl, {PR_GET_SPECULATION_CTRL, what, 0, 0, 0});
  if (auto run = batch.run(); !run) return run;
  if (batch.result(stack) != 0 || batch.result(tid) != 0)
    return errno_error("state of a thread", ESRCH);
  const auto alternate = batch.value<stack_t>(stack_at);
  image.alternate_stack = reinterpret_cast<uint64_t>(alternate.ss_sp);
  image.alternate_stack_bytes = alternate.ss_size;
  image.alternate_stack_flags = alternate.ss_flags;
  image.tid_address = batch.value<uint64_t>(address_at);
  image.counter_access = batch.value<int32_t>(counter_at);
  image.parent_end_signal = batch.value<int32_t>(parent_end_at);
  if (batch.result(errors) >= 0) image.memory_errors = static_cast<int32_t>(batch.result(errors));
  for (size_t what = 0; what < image.speculation.size(); ++what)
    image.speculation[what] =
        static_cast<int32_t>(std::max<int64_t>(batch.result(speculation + what), 0));
  return {};
}

// The number of the call that restart_syscall goes on with: what the program put into eax before.
uint64_t restarted_call(const FrozenProcess& process, const user_regs_struct& registers) {
  struct Code {
    uint8_t bytes[7];
  };
  auto code = process.read_value<Code>(RemoteAddr{registers.rip - sizeof(Code)});
  if (!code || code->bytes[0] != 0xb8 || code->bytes[5] != 0x0f || code->bytes[6] != 0x05)
    return SYS_restart_syscall;  // else: mov $number, %eax; syscall
  uint32_t number;
  memcpy(&number, &code->bytes[1], sizeof number);
  return number;
}

// The kernel may have made it ready to go on with its call already: it stands before the system
// call instruction again, with the number of restart_syscall.
void return_to_call(const FrozenProcess& process, user_regs_struct& r) {
  constexpr uint16_t kSyscallInstruction = 0x050f;
  if (r.rax != SYS_restart_syscall || static_cast<int64_t>(r.orig_rax) < 0) return;
  auto code = process.read_value<uint16_t>(RemoteAddr{r.rip});
  if (!code || *code != kSyscallInstruction) return;
  r.rip += sizeof kSyscallInstruction;
  r.orig_rax = SYS_restart_syscall;
  r.rax = static_cast<uint64_t>(kRestartBlock);
}

// A call that the kernel goes on with by what it remembers of it, which no other kernel does. Of a
// sleep the program itself is told what is left; a futex' absolute time, or a whole time limit,
// begins anew; of what is not known, the end is one that the kernel could bring about: EINTR.
void make_restartable(const FrozenProcess& process, ImageThread& image) {
  user_regs_struct& r = image.registers;
  return_to_call(process, r);
  if (static_cast<int64_t>(r.rax) != kRestartBlock) return;
  if (r.orig_rax == SYS_restart_syscall) r.orig_rax = restarted_call(process, r);
  if (r.orig_rax == SYS_restart_syscall) {
    r.rax = static_cast<uint64_t>(-EINTR);
    return;
  }
  const uint64_t left_at = r.orig_rax == SYS_nanosleep         ? r.rsi
                           : r.orig_rax == SYS_clock_nanosleep ? r.r10
                                                               : 0;
  if (left_at != 0)
    if (auto left = process.read_value<timespec>(RemoteAddr{left_at})) {
      image.sleep_left_ns = left->tv_sec * kNsPerSecond + left->tv_nsec;
      return;
    }
  r.rax = static_cast<uint64_t>(kRestartUnlessHandled);
}

}  // namespace

Result<std::vector<ImageSignal>> read_pending_signals(pid_t tid, uint32_t flags) {
  static_assert(sizeof(siginfo_t) == sizeof(ImageSignal::info));
  std::vector<ImageSignal> signals;
  for (;;) {
    ImageSignal signal;
    __ptrace_peeksiginfo_args arguments{signals.size(), flags, 1};
    const long got = ptrace(PTRACE_PEEKSIGINFO, tid, &arguments, signal.info.data());
    if (got < 0) return errno_error("the process died", ESRCH);
    if (got == 0) return signals;
    signals.push_back(signal);
  }
}

Status settle_all(FrozenProcess& process) {
  for (const auto& thread : process.threads())
    if (auto settled = thread->settle(); !settled) return settled;
  return {};
}

Result<std::vector<ImageSignal>> take_pending_signals(FrozenProcess& process) {
  constexpr size_t kAtOnce = 32;
  std::vector<ImageSignal> taken;
  if (auto settled = settle_all(process); !settled) return settled.error();
  for (;;) {
    auto waiting = read_pending_signals(process.pid(), PTRACE_PEEKSIGINFO_SHARED);
    auto of_main = waiting ? read_pending_signals(process.pid(), 0) : waiting.error();
    if (!of_main) return of_main.error();
    const size_t count = std::min(waiting->size() + of_main->size(), kAtOnce);
    if (count == 0) return taken;
    CallBatch batch(process);
    const uint64_t all = batch.put(~uint64_t{0}).value, at_once = batch.put(timespec{}).value;
    std::vector<RemoteAddr> at;
    for (size_t i = 0; i < count; ++i) {
      at.push_back(batch.put(ImageSignal{}.info));
      batch.add(SYS_rt_sigtimedwait, {all, at.back().value, at_once, sizeof all});
    }
    if (auto run = batch.run(); !run) return run.error();
    for (size_t i = 0; i < count; ++i)
      if (batch.result(i) > 0) taken.push_back({batch.value<decltype(ImageSignal::info)>(at[i])});
    if (batch.result(0) > 0) continue;
    // Nobody can take it; krgd holds it since the batch.
    for (const auto* signals : {&*waiting, &*of_main})
      for (const ImageSignal& signal : *signals)
        if (signal.number() == SIGSTOP) taken.push_back(signal);
    return taken;
  }
}

Result<ImageThread> capture_thread(FrozenProcess& process, FrozenThread& thread) {
  ImageThread image;
  image.tid = thread.tid();
  image.registers = thread.registers();
  image.signal_mask = thread.signal_mask();
  make_restartable(process, image);
  if (auto read = read_by_ptrace(image.tid, image); !read) return read.error();
  if (auto read = read_by_its_calls(process, thread, image); !read) return read.error();
  auto pending = read_pending_signals(image.tid, 0);
  if (!pending) return pending.error();
  image.pending = std::move(*pending);
  auto scheduling = read_exec_caller(image.tid);
  auto name = read_whole_file(fmt::format("/proc/{}/comm", image.tid));
  if (!scheduling || !name) return errno_error("no such process", ESRCH);
  image.nice = scheduling->nice;
  image.policy = scheduling->policy;
  image.realtime_priority = scheduling->realtime_priority;
  image.processors = places_among(processors_of_thread(getpid()), processors_of_thread(image.tid));
  image.name = name->substr(0, name->find_last_of('\n'));
  return image;
}

}  // namespace krg
