// SpreadProcess: system calls of its threads that are more than the kernel's business: those that
// change mappings, fork, and exit.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/sched.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>

#include "spread/spread_process.h"

namespace krg {
namespace {

constexpr uint64_t kMostBrought = 64u << 20;  // of one piece of a vector

bool is_error(int64_t result) {
  return result < 0 && result > -int64_t{kPageBytes};
}

}  // namespace

// --- before the kernel carries it out -----------------------------------------------------------

void SpreadProcess::on_entry(const ThreadPtr& thread) {
  if (thread->is_exiting) return resume(thread);
  auto registers = thread->traced->registers();
  if (registers) on_entry(thread, *registers);
}

void SpreadProcess::on_entry(const ThreadPtr& thread, const user_regs_struct& registers) {
  thread->entry = registers;
  thread->number = registers.orig_rax;
  thread->result.reset();
  thread->maps.reset();
  thread->has_changed_arguments = false;
  thread->woken = 0;
  thread->forks = false;
  if (!begin_change(thread)) return;
  if (thread->number == SYS_restart_syscall) return begin_restart(thread);
  thread->interrupted_wait.reset();
  switch (thread->number) {
    case SYS_futex:
      return begin_futex(thread);
    case SYS_futex_waitv:
      return begin_wait_for_any(thread);
    case SYS_clone3:
      return begin_clone3(thread);
    case SYS_set_tid_address:
      thread->tid_address = registers.rdi;
      return resume(thread);
    case SYS_mmap:
      return begin_map(thread);
    case SYS_mremap:
      return begin_remap(thread);
    case SYS_madvise:
      return begin_advice(thread);
    case SYS_rseq:  // a thread may go to another node at any moment
      return skip(thread, 0);
    case SYS_exit:
      return begin_exit(thread);
    case SYS_exit_group:
      return charge_parent(thread, [this, thread] { resume(thread); });
    case SYS_sched_setaffinity:
      return begin_affinity(thread);
    case SYS_setitimer:
    case SYS_getitimer:
      return begin_timer_call(thread);
    case kTeamCallNumber:
      return begin_team_call(thread);
    case SYS_clone:
      thread->new_tid_address.reset();
      if (registers.rdi & CLONE_CHILD_CLEARTID) thread->new_tid_address = registers.r10;
      if (registers.rdi & CLONE_VM) return resume(thread);
      [[fallthrough]];
    case SYS_fork:
      return begin_fork(thread, registers);
    default:
      return begin_loans(thread);
  }
}

void SpreadProcess::skip(const ThreadPtr& thread, int64_t result) {
  if (thread->call && !thread->is_recalled) {  // the original need not move
    thread->stands = Stands::kArmed;
    answer(thread, result);
    return end_change(thread);
  }
  user_regs_struct none = thread->entry;
  none.orig_rax = ~0ULL;
  none.rax = static_cast<uint64_t>(result);
  thread->result = result;
  static_cast<void>(thread->traced->set_registers(none));
  resume(thread);
}

// The program finds its arguments as they were.
void SpreadProcess::change_call(const ThreadPtr& thread, const user_regs_struct& call) {
  thread->has_changed_arguments = true;
  thread->number = call.orig_rax;
  static_cast<void>(thread->traced->set_registers(call));
  resume(thread);
}

void SpreadProcess::begin_advice(const ThreadPtr& thread) {
  const auto ranges = parts_.memory.in(RemoteAddr{thread->entry.rdi}, thread->entry.rsi);
  if (ranges.empty()) return resume(thread);
  if (thread->entry.rdx != MADV_DONTNEED) return skip(thread, 0);
  auto left = std::make_shared<size_t>(ranges.size());
  for (const SpreadRange& range : ranges)
    parts_.pages->discard(range.first, range.bytes / kPageBytes,
                          [this, left, thread, alive = std::weak_ptr(alive_)] {
                            if (--*left == 0 && !alive.expired()) skip(thread, 0);
                          });
}

// --- afterwards ---------------------------------------------------------------------------------

void SpreadProcess::on_exit(const ThreadPtr& thread) {
  if (thread->is_exiting) return forget_tid_address(thread);
  if (thread->forks) return fork_next(thread);
  if (!thread->loans.empty()) return end_loans(thread);
  if (thread->borrower) return give_to_borrower(thread);
  if (thread->result) return finish(thread);
  auto registers = thread->traced->registers();
  if (!registers) return;
  if (const auto code =
          thread->traced->was_interrupted() ? restart_code(*registers) : std::nullopt) {
    registers->rax = static_cast<uint64_t>(-*code);
    static_cast<void>(thread->traced->set_registers(*registers));
    return resume(thread);
  }
  if (lacks_memory(thread, *registers)) return bring_memory(thread, 0);
  if (thread->waits) return end_wait(thread, *registers) ? resume(thread) : finish(thread);
  if (is_to_be_restarted(*registers) || is_remembered_by_kernel(*registers)) return resume(thread);
  if (thread->woken > 0) {
    registers->rax = std::max<int64_t>(static_cast<int64_t>(registers->rax), 0) + thread->woken;
    static_cast<void>(thread->traced->set_registers(*registers));
  }
  const uint64_t result = registers->rax;
  if (thread->has_changed_arguments) {
    user_regs_struct own = thread->entry;
    own.rax = result;
    own.rip = registers->rip;
    own.rcx = registers->rcx;
    own.r11 = registers->r11;
    own.eflags = registers->eflags;
    *registers = own;
    static_cast<void>(thread->traced->set_registers(own));
  }
  if (!is_error(static_cast<int64_t>(result))) return after_call(thread, result);
  if (thread->maps) parts_.memory.give_back(*thread->maps);
  finish(thread);
}

void SpreadProcess::after_call(const ThreadPtr& thread, uint64_t result) {
  const user_regs_struct& call = thread->entry;
  if (thread->number == SYS_mmap && call.orig_rax == SYS_mremap)
    return move_pages(thread, RemoteAddr{result});
  const auto done = [this, thread] { finish(thread); };
  switch (thread->number) {
    case SYS_mmap:
      return after_map(thread, RemoteAddr{result});
    case SYS_munmap:
      if (call.orig_rax == SYS_mremap) return after_shrink(thread);
      return unmap_everywhere(RemoteAddr{call.rdi}, call.rsi, done);
    case SYS_brk:
      return after_brk(thread, result);
    case SYS_mremap:
      return unmap_everywhere(RemoteAddr{call.rdi}, std::max<uint64_t>(call.rsi, 1),
                              [this, result, bytes = call.rdx, done] {
                                unmap_everywhere(RemoteAddr{result}, bytes, done);
                              });
    case SYS_mprotect:
      return protect_everywhere(RemoteAddr{call.rdi}, call.rsi, static_cast<uint32_t>(call.rdx),
                                done);
    case SYS_getrusage:
    case SYS_times:
    case SYS_clock_gettime:
    case SYS_wait4:
    case SYS_waitid:
      return add_usage(thread, result);
    case SYS_kill:
    case SYS_tkill:
    case SYS_tgkill:
    case SYS_rt_sigqueueinfo:
    case SYS_rt_tgsigqueueinfo:
      finish(thread);
      return look_for_signals();
    default:
      return finish(thread);
  }
}

void SpreadProcess::finish(const ThreadPtr& thread) {
  thread->maps.reset();  // else it would not be at rest before its next call
  if (!thread->call) {
    resume(thread);
  } else if (thread->is_recalled) {  // itself elsewhere does not wait for the result any more
    thread->stands = Stands::kBehindCall;
  } else if (auto registers = thread->traced->registers()) {  // else its end is told
    answer(thread, static_cast<int64_t>(registers->rax));
    arm(thread);
  }
  end_change(thread);
}

// To itself elsewhere.
void SpreadProcess::answer(const ThreadPtr& thread, int64_t result) {
  thread->is_in_call = false;
  auto reply = std::move(*thread->call);
  thread->call.reset();
  parts_.pages->publish(thread->node);
  ++answers_;
  reply.ok({reinterpret_cast<const char*>(&result), sizeof result});
}

// --- what krgd answers ---

// krgd cannot wait for a page of its own set: it fails where memory of the call is not here. So the
// thread has it brought, and makes its call again. Only calls that have done nothing by then.
bool SpreadProcess::lacks_memory(const ThreadPtr& thread, const user_regs_struct& registers) {
  constexpr unsigned kMostTries = 8;
  constexpr std::array kAnswered = {SYS_sched_getaffinity,
                                    SYS_sched_setaffinity,
                                    SYS_sched_getparam,
                                    SYS_sched_setparam,
                                    SYS_sched_getattr,
                                    SYS_sched_setattr,
                                    SYS_sched_setscheduler,
                                    SYS_prlimit64,
                                    SYS_sysinfo,
                                    SYS_times,
                                    SYS_getrusage,
                                    SYS_semop,
                                    SYS_semctl,
                                    SYS_msgsnd,
                                    SYS_process_vm_readv,
                                    SYS_process_vm_writev,
                                    SYS_ioctl};
  const bool lacks = static_cast<int64_t>(registers.rax) == -EFAULT && !thread->result &&
                     std::find(kAnswered.begin(), kAnswered.end(),
                               static_cast<long>(thread->number)) != kAnswered.end() &&
                     thread->brought < kMostTries;
  thread->brought = lacks ? thread->brought + 1 : 0;
  return lacks;
}

void SpreadProcess::bring_memory(const ThreadPtr& thread, size_t argument) {
  const user_regs_struct& call = thread->entry;
  const std::array arguments = {call.rdi, call.rsi, call.rdx, call.r10, call.r8};
  for (; argument < arguments.size(); ++argument) {
    const auto range = parts_.memory.find(RemoteAddr{arguments[argument]});
    if (!range) continue;
    const uint64_t page = arguments[argument] / kPageBytes * kPageBytes;
    const uint64_t bytes = std::min<uint64_t>(range->end().value - page, 2 * kPageBytes);
    const int advice = range->protection & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    return populate(thread, RemoteAddr{page}, bytes, advice,
                    [this, thread, argument] { bring_memory(thread, argument + 1); });
  }
  const bool has_vector =
      thread->number == SYS_process_vm_readv || thread->number == SYS_process_vm_writev;
  if (has_vector) return bring_vector(thread);
  call_again(thread);
}

void SpreadProcess::call_again(const ThreadPtr& thread) {
  static_cast<void>(thread->traced->set_registers(before_the_call(thread->entry)));
  resume(thread);
}

// What lies behind its second argument, an array of iovec.
void SpreadProcess::bring_vector(const ThreadPtr& thread) {
  const uint64_t count = std::min<uint64_t>(thread->entry.rdx, IOV_MAX);
  read_memory(RemoteAddr{thread->entry.rsi}, count * sizeof(iovec),
              [this, thread, alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
                if (alive.expired() || thread->is_gone) return;
                auto pieces =
                    std::make_shared<std::vector<iovec>>(read ? read->size() / sizeof(iovec) : 0);
                if (read) std::memcpy(pieces->data(), read->data(), pieces->size() * sizeof(iovec));
                bring_piece(thread, pieces);
              });
}

void SpreadProcess::bring_piece(const ThreadPtr& thread,
                                const std::shared_ptr<std::vector<iovec>>& pieces) {
  while (!pieces->empty()) {
    const iovec piece = pieces->back();
    pieces->pop_back();
    const auto start = reinterpret_cast<uint64_t>(piece.iov_base);
    const auto range = parts_.memory.find(RemoteAddr{start});
    if (!range || piece.iov_len == 0) continue;
    const uint64_t page = start / kPageBytes * kPageBytes;
    const uint64_t wanted = start % kPageBytes + std::min<uint64_t>(piece.iov_len, kMostBrought);
    const uint64_t bytes =
        std::min(range->end().value - page, (wanted + kPageBytes - 1) / kPageBytes * kPageBytes);
    const int advice = range->protection & PROT_WRITE ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    return populate(thread, RemoteAddr{page}, bytes, advice,
                    [this, thread, pieces] { bring_piece(thread, pieces); });
  }
  call_again(thread);
}

void SpreadProcess::populate(const ThreadPtr& thread, RemoteAddr start, uint64_t bytes, int advice,
                             std::function<void()> done) {
  thread->traced->call(
      parts_.instruction, SYS_madvise, {start.value, bytes, static_cast<uint64_t>(advice)},
      [thread, done = std::move(done), alive = std::weak_ptr(alive_)](int64_t result) {
        if (!alive.expired() && !thread->is_gone && result != -ESRCH) done();
      });
}

// --- the end of a thread ------------------------------------------------------------------------

// Where the kernel clears the thread's id at its end is an argument of the call that makes it.
void SpreadProcess::begin_clone3(const ThreadPtr& thread) {
  thread->new_tid_address.reset();
  const size_t bytes = std::min<uint64_t>(thread->entry.rsi, sizeof(clone_args));
  if (bytes < CLONE_ARGS_SIZE_VER0) return resume(thread);
  read_memory(RemoteAddr{thread->entry.rdi}, bytes,
              [this, thread, alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
                if (alive.expired() || thread->is_gone) return;
                clone_args arguments{};
                if (read) std::memcpy(&arguments, read->data(), read->size());
                if (read && !(arguments.flags & CLONE_VM)) return begin_fork3(thread, arguments);
                if (arguments.flags & CLONE_CHILD_CLEARTID)
                  thread->new_tid_address = arguments.child_tid;
                resume(thread);
              });
}

// A fork by clone3(2), as clone(2) says it; what that cannot say is refused, as by a kernel that
// does not have clone3(2).
void SpreadProcess::begin_fork3(const ThreadPtr& thread, const clone_args& arguments) {
  const bool has_pidfd = arguments.flags & CLONE_PIDFD;
  const bool fits = arguments.flags <= UINT32_MAX && arguments.set_tid_size == 0 &&
                    arguments.exit_signal <= CSIGNAL && !(arguments.flags & CSIGNAL) &&
                    !(has_pidfd && (arguments.flags & CLONE_PARENT_SETTID));
  if (!fits) return skip(thread, -ENOSYS);
  thread->number = SYS_fork;  // what it changes
  if (!begin_change(thread)) return;
  user_regs_struct call = thread->entry;
  call.orig_rax = SYS_clone;
  call.rdi = arguments.flags | arguments.exit_signal;
  call.rsi = arguments.stack == 0 ? 0 : arguments.stack + arguments.stack_size;
  call.rdx = has_pidfd ? arguments.pidfd : arguments.parent_tid;
  call.r10 = arguments.child_tid;
  call.r8 = arguments.tls;
  begin_fork(thread, call);
}

// At its end the kernel clears the thread's id (set_tid_address(2)), but does not wait for a page
// that is not here (userfaultfd is not asked by a task that exits): krgd does it before, after the
// thread has told the kernel not to.
void SpreadProcess::begin_exit(const ThreadPtr& thread) {
  thread->is_exiting = true;
  const uint64_t all = ~0ULL;
  ptrace(PTRACE_SETSIGMASK, thread->traced->tid(), sizeof all, &all);
  free_robust_mutexes(thread, [this, thread] {
    if (!is_last(thread)) return begin_exit_call(thread);
    charge_parent(thread, [this, thread] { begin_exit_call(thread); });
  });
}

void SpreadProcess::begin_exit_call(const ThreadPtr& thread) {
  user_regs_struct call = thread->entry;
  call.orig_rax = SYS_set_tid_address;
  call.rdi = 0;
  if (!thread->tid_address) {
    call.orig_rax = SYS_prctl;
    call.rdi = PR_GET_TID_ADDRESS;
    call.rsi = parts_.scratch.address_of(thread->slot).value;
  }
  change_call(thread, call);
}

void SpreadProcess::forget_tid_address(const ThreadPtr& thread) {
  if (thread->tid_address) return clear_tid(thread);
  thread->tid_address = parts_.scratch.read(thread->slot);
  user_regs_struct call = before_the_call(thread->entry);
  call.rax = SYS_set_tid_address;
  call.rdi = 0;
  static_cast<void>(thread->traced->set_registers(call));
  resume(thread);
}

void SpreadProcess::clear_tid(const ThreadPtr& thread) {
  const RemoteAddr address{*thread->tid_address};
  const auto offset = parts_.memory.offset_of(address, sizeof(uint32_t));
  if (address.value == 0 || !offset) return exit(thread);
  parts_.pages->update(
      *offset, [](uint32_t) { return 0; },
      [this, thread, address, alive = std::weak_ptr(alive_)](const Result<uint32_t>&) {
        if (alive.expired() || thread->is_gone) return;
        wake_futex(address, INT_MAX, ~0u);
        exit(thread);
      });
}

void SpreadProcess::exit(const ThreadPtr& thread) {
  static_cast<void>(thread->traced->set_registers(before_the_call(thread->entry)));
  resume(thread);
}

}  // namespace krg
