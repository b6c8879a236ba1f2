// SPDX-License-Identifier: GPL-2.0-or-later
#include <elf.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <csignal>
#include <cstring>
#include <ctime>

#include "image/call_batch.h"
#include "image/install_parts.h"
#include "kernel_values.h"
#include "process_spec.h"
#include "processor_numbers.h"

namespace krg {
namespace {

constexpr size_t kMostExtendedState = 64u << 10;
// In an XSAVE area as ptrace has it (the kernel's user_xstateregs).
constexpr size_t kSupportedAt = 464, kUsedAt = 512;

// `tid`: the id that it is to have; 0: the kernel chooses, and writes it where the program has it.
// Returns the id.
Result<pid_t> make_thread(FrozenProcess& process, const ImageThread& image, pid_t tid) {
  auto scratch = process.scratch();
  auto instruction = process.instruction();
  if (!scratch) return scratch.error();
  if (!instruction) return instruction.error();
  const RemoteAddr tid_at = *scratch + sizeof(clone_args);
  clone_args arguments{};
  arguments.flags =
      CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  if (tid != 0) {
    arguments.set_tid = tid_at.value;
    arguments.set_tid_size = 1;
    if (auto put = process.write_value(tid_at, tid); !put) return put.error();
  } else if (image.tid_address != 0) {
    arguments.flags |= CLONE_CHILD_SETTID;
    arguments.child_tid = image.tid_address;
  }
  if (auto put = process.write_value(*scratch, arguments); !put) return put.error();
  pid_t made = 0;
  const int64_t result =
      process.main().call_clone(*instruction, SYS_clone3, {scratch->value, sizeof arguments}, made);
  if (made != 0) {
    auto thread = FrozenThread::stopped(made);
    if (!thread) return thread.error();
    process.add(std::move(*thread));
  }
  if (auto done = done_by_call("threads", result); !done) return done.error();
  return made;
}

// It begins with what krgd may use, at its home with what it had when it left.
void set_processors(const ImageThread& thread) {
  const ProcessorSet own = processors_of_thread(getpid()), now = processors_of_thread(thread.tid);
  if (thread.processors.empty() && places_among(own, now).empty()) return;
  bind_thread(thread.tid, at_places(thread.processors, own));
}

// What this kernel or processor does not offer is passed over.
void add_settings(CallBatch& batch, const ImageThread& image) {
  const auto number = [](int32_t value) { return static_cast<uint64_t>(value); };
  if (image.counter_access != PR_TSC_ENABLE)
    batch.add(SYS_prctl, {PR_SET_TSC, number(image.counter_access)});
  if (image.memory_errors != PR_MCE_KILL_DEFAULT)
    batch.add(SYS_prctl, {PR_MCE_KILL, PR_MCE_KILL_SET, number(image.memory_errors), 0, 0});
  batch.add(SYS_prctl, {PR_SET_PDEATHSIG, number(image.parent_end_signal)});
  for (uint64_t what = 0; what < image.speculation.size(); ++what) {
    const int32_t how = image.speculation[what] & ~PR_SPEC_PRCTL;
    if (image.speculation[what] & PR_SPEC_PRCTL && how != PR_SPEC_ENABLE)
      batch.add(SYS_prctl, {PR_SET_SPECULATION_CTRL, what, number(how), 0, 0});
  }
}

Status set_scheduling(const ProcessImage& image, const ImageThread& thread) {
  const ImageThread& main = image.threads.front();
  const auto tid = static_cast<id_t>(thread.tid);
  const sched_param parameter{thread.realtime_priority};
  if (thread.policy != main.policy || thread.realtime_priority != main.realtime_priority)
    if (sched_setscheduler(thread.tid, thread.policy, &parameter) != 0)
      return errno_error("scheduling of a thread");
  if (thread.nice != main.nice && setpriority(PRIO_PROCESS, tid, thread.nice) != 0)
    return errno_error("priority of a thread");
  set_processors(thread);
  return {};
}

Status set_by_its_calls(FrozenProcess& process, FrozenThread& thread, const ImageThread& image) {
  CallBatch batch(process, thread);
  if (image.tid_address != 0) batch.add(SYS_set_tid_address, {image.tid_address});
  if (image.robust_list != 0)
    batch.add(SYS_set_robust_list, {image.robust_list, image.robust_list_bytes});
  if (!(image.alternate_stack_flags & SS_DISABLE)) {
    stack_t stack{};
    stack.ss_sp = reinterpret_cast<void*>(image.alternate_stack);
    stack.ss_size = image.alternate_stack_bytes;
    stack.ss_flags = image.alternate_stack_flags & ~SS_ONSTACK;
    batch.add(SYS_sigaltstack, {batch.put(stack).value, 0});
  }
  std::array<char, 16> name{};  // TASK_COMM_LEN
  image.name.copy(name.data(), name.size() - 1);
  batch.add(SYS_prctl, {PR_SET_NAME, batch.put(name).value});
  const size_t needed = batch.size();
  add_settings(batch, image);
  if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < needed; ++i)
    if (auto set = done_by_call("state of a thread", batch.result(i)); !set) return set;
  return {};
}

// Processors differ in how much state they have: what this one lacks must not be in use.
Status set_extended_state(pid_t tid, const std::string& image) {
  std::string own(kMostExtendedState, '\0');
  iovec state{own.data(), own.size()};
  if (ptrace(PTRACE_GETREGSET, tid, NT_X86_XSTATE, &state) != 0)
    return errno_error("the process died", ESRCH);
  own.resize(state.iov_len);
  if (image.size() < kUsedAt + sizeof(uint64_t) || own.size() < kUsedAt + sizeof(uint64_t))
    return errno_error("extended registers", EBADMSG);
  uint64_t supported, used;
  memcpy(&supported, &own[kSupportedAt], sizeof supported);
  memcpy(&used, &image[kUsedAt], sizeof used);
  if ((used & ~supported) != 0) return cannot_move("registers that this processor lacks");
  std::string wanted = image;
  wanted.resize(own.size());
  wanted.replace(kSupportedAt, kUsedAt - kSupportedAt, own, kSupportedAt, kUsedAt - kSupportedAt);
  iovec put{wanted.data(), wanted.size()};
  if (ptrace(PTRACE_SETREGSET, tid, NT_X86_XSTATE, &put) != 0)
    return errno_error("extended registers");
  return {};
}

// The kernel here is to remember the rest of the sleep as that of the origin did: the thread begins
// it and is interrupted.
Status begin_sleep(FrozenProcess& process, FrozenThread& thread, const ImageThread& image) {
  auto scratch = process.scratch();
  auto instruction = process.instruction();
  if (!scratch) return scratch.error();
  if (!instruction) return instruction.error();
  const int64_t left = image.sleep_left_ns;
  const timespec rest{left / kNsPerSecond, left % kNsPerSecond};
  if (auto put = process.write_value(*scratch, rest); !put) return put;
  user_regs_struct r = image.registers;
  const bool is_futex = r.orig_rax == SYS_futex;
  const int64_t result =
      is_futex ? thread.call_and_interrupt(*instruction, SYS_futex,
                                           {r.rdi, r.rsi, r.rdx, scratch->value, r.r8, r.r9})
      : r.orig_rax == SYS_nanosleep
          ? thread.call_and_interrupt(*instruction, SYS_nanosleep, {scratch->value, r.rsi})
          : thread.call_and_interrupt(*instruction, SYS_clock_nanosleep,
                                      {r.rdi, r.rsi, scratch->value, r.r10});
  if (result == static_cast<int64_t>(r.rax)) return {};
  if (!is_futex)
    if (auto slept = done_by_call("sleep", result); !slept) return slept;
  r.rax = static_cast<uint64_t>(result);  // it was over
  thread.set_registers(r);
  return {};
}

// For that thread, or for the process (tid 0).
void add_signals(CallBatch& batch, pid_t pid, pid_t tid, const std::vector<ImageSignal>& signals) {
  const auto process = static_cast<uint64_t>(pid), thread = static_cast<uint64_t>(tid);
  for (const ImageSignal& signal : signals) {
    const auto number = static_cast<uint64_t>(signal.number());
    const uint64_t at = batch.put(signal.info).value;
    if (tid != 0)
      batch.add(SYS_rt_tgsigqueueinfo, {process, thread, number, at});
    else
      batch.add(SYS_rt_sigqueueinfo, {process, number, at});
  }
}

Status finish_thread(FrozenProcess& process, FrozenThread& thread, const ImageThread& image) {
  CallBatch batch(process, thread);
  if (image.rseq != 0) batch.add(SYS_rseq, {image.rseq, image.rseq_bytes, 0, image.rseq_signature});
  add_signals(batch, process.pid(), thread.tid(), image.pending);
  if (batch.size() > 0)
    if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < batch.size(); ++i)
    if (auto done = done_by_call("rseq and waiting signals", batch.result(i)); !done) return done;
  if (auto set = set_extended_state(thread.tid(), image.extended_state); !set) return set;
  thread.set_registers(image.registers);
  thread.set_signal_mask(image.signal_mask);
  return image.sleep_left_ns < 0 ? Status() : begin_sleep(process, thread, image);
}

Status set_up_threads(FrozenProcess& process, const ProcessImage& image) {
  for (size_t i = 0; i < image.threads.size(); ++i) {
    FrozenThread& thread = *process.threads()[i];
    if (auto set = set_by_its_calls(process, thread, image.threads[i]); !set) return set;
    if (auto set = set_scheduling(image, image.threads[i]); !set) return set;
  }
  return {};
}

}  // namespace

Status queue_signals(FrozenProcess& process, const std::vector<ImageSignal>& signals) {
  CallBatch batch(process);
  add_signals(batch, process.pid(), 0, signals);
  if (batch.size() == 0) return {};
  if (auto run = batch.run(); !run) return run;
  for (size_t i = 0; i < batch.size(); ++i)
    if (auto done = done_by_call("waiting signals", batch.result(i)); !done) return done;
  return {};
}

Status install_threads(FrozenProcess& process, const ProcessImage& image) {
  for (size_t i = 1; i < image.threads.size(); ++i)
    if (auto made = make_thread(process, image.threads[i], image.threads[i].tid); !made)
      return made.error();
  return set_up_threads(process, image);
}

Status copy_threads(FrozenProcess& process, ProcessImage& image) {
  for (size_t i = 1; i < image.threads.size(); ++i) {
    auto made = make_thread(process, image.threads[i], 0);
    if (!made) return made.error();
    image.threads[i].tid = *made;
  }
  return set_up_threads(process, image);
}

Status finish_threads(FrozenProcess& process, const ProcessImage& image) {
  for (size_t i = 0; i < image.threads.size(); ++i)
    if (auto done = finish_thread(process, *process.threads()[i], image.threads[i]); !done)
      return done;
  return {};
}

}  // namespace krg
