// SpreadProcess: futexes in its spread memory. Who waits for which word is known at home, by
// address; whether the word is what a waiter expects is looked at where the waiter is, in pages
// that nobody else writes meanwhile. A thread at home waits in a futex(2) of its own
// (spread_scratch.h), so that time limits and signals are the kernel's business; one elsewhere just
// gets no answer. SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/futex.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "spread/futex_call.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

constexpr uint64_t kAllBits = FUTEX_BITSET_MATCH_ANY;

// FUTEX_WAKE_OP's operation and comparison, as futex(2) encodes them.
int32_t sign_extended(uint32_t value) {
  return static_cast<int32_t>(value << 20) >> 20;
}
uint32_t operated(uint32_t encoded, uint32_t old) {
  const uint32_t kind = encoded >> 28;
  auto argument = static_cast<uint32_t>(sign_extended(encoded >> 12 & 0xfff));
  if (kind & FUTEX_OP_OPARG_SHIFT) argument = 1u << (argument & 31);
  switch (kind & 7) {
    case FUTEX_OP_SET:
      return argument;
    case FUTEX_OP_ADD:
      return old + argument;
    case FUTEX_OP_OR:
      return old | argument;
    case FUTEX_OP_ANDN:
      return old & ~argument;
    default:
      return old ^ argument;
  }
}
bool compares(uint32_t encoded, uint32_t old) {
  const int32_t argument = sign_extended(encoded & 0xfff);
  const auto value = static_cast<int32_t>(old);
  switch (encoded >> 24 & 0xf) {
    case FUTEX_OP_CMP_EQ:
      return value == argument;
    case FUTEX_OP_CMP_NE:
      return value != argument;
    case FUTEX_OP_CMP_LT:
      return value < argument;
    case FUTEX_OP_CMP_LE:
      return value <= argument;
    case FUTEX_OP_CMP_GT:
      return value > argument;
    default:
      return value >= argument;
  }
}

}  // namespace

SharedPlace SpreadProcess::futex_place(RemoteAddr address) const {
  return {set(), PageIndex{address.value / kPageBytes}, address.value % kPageBytes};
}

IpcTicket SpreadProcess::ticket_of(pid_t tid, NodeId node) const {
  return {node, static_cast<uint64_t>(tid)};
}

void SpreadProcess::begin_futex(const ThreadPtr& thread) {
  const user_regs_struct& call = thread->entry;
  const RemoteAddr address{call.rdi};
  if (!parts_.memory.find(address) || address.value % sizeof(uint32_t) != 0) return resume(thread);
  const auto wake_here = [&](uint64_t bits) {
    parts_.pages->wakes(thread->traced->tid());
    const size_t woken = wake_futex(address, futex_count(call.rdx), static_cast<uint32_t>(bits));
    if (!has_native_waiters()) return skip(thread, static_cast<int64_t>(woken));
    thread->woken = woken;
    resume(thread);
  };
  switch (futex_operation(call)) {
    case FUTEX_WAIT:
      return begin_wait(thread, kAllBits);
    case FUTEX_WAIT_BITSET:
      return call.r9 == 0 ? resume(thread) : begin_wait(thread, call.r9);
    case FUTEX_WAKE:
      return wake_here(kAllBits);
    case FUTEX_WAKE_BITSET:
      return call.r9 == 0 ? resume(thread) : wake_here(call.r9);
    case FUTEX_REQUEUE:
      return requeue(thread);
    case FUTEX_CMP_REQUEUE:
      return with_word(thread, address, [this, thread](uint32_t word) {
        word == static_cast<uint32_t>(thread->entry.r9) ? requeue(thread) : skip(thread, -EAGAIN);
      });
    case FUTEX_WAKE_OP:
      return begin_wake_op(thread);
    default:  // those of priority inheritance, who meet their like only
      return resume(thread);
  }
}

// Those that were in such a wait when the process was spread, and are still.
bool SpreadProcess::has_native_waiters() const {
  return std::any_of(threads_.begin(), threads_.end(),
                     [](const auto& entry) { return entry.second->waits_natively; });
}

void SpreadProcess::with_word(const ThreadPtr& thread, RemoteAddr address,
                              std::function<void(uint32_t)> use) {
  const auto offset = parts_.memory.offset_of(address, sizeof(uint32_t));
  if (!offset) return skip(thread, -EFAULT);
  parts_.pages->read(*offset, sizeof(uint32_t),
                     [this, thread, use = std::move(use),
                      alive = std::weak_ptr(alive_)](Result<std::string> bytes) {
                       if (alive.expired() || thread->is_gone) return;
                       uint32_t word = 0;
                       if (!bytes) return skip(thread, -EFAULT);
                       std::memcpy(&word, bytes->data(), sizeof word);
                       use(word);
                     });
}

// --- waiting ------------------------------------------------------------------------------------

void SpreadProcess::begin_wait(const ThreadPtr& thread, uint64_t bits) {
  with_word(thread, RemoteAddr{thread->entry.rdi}, [this, thread, bits](uint32_t word) {
    user_regs_struct call = thread->entry;
    if (word != static_cast<uint32_t>(call.rdx)) return skip(thread, -EAGAIN);
    futexes_.wait(futex_place(RemoteAddr{call.rdi}), own_ticket(thread),
                  static_cast<uint32_t>(bits));
    thread->waits = true;
    parts_.pages->waits(thread->traced->tid());
    if (counts()) counts()->begin_wait(thread->traced->tid());
    parts_.scratch.close(thread->slot);
    if (thread->number == SYS_restart_syscall) return resume(thread);  // it knows for what
    call.rdi = parts_.scratch.address_of(thread->slot).value;
    call.rsi &= ~uint64_t{FUTEX_PRIVATE_FLAG};
    call.rdx = 0;
    change_call(thread, call);
  });
}

// Waits for several words (futex_waitv(2)) are refused where one of them is spread memory's, as by
// a kernel that does not know them (before 5.16): the kernel's would not be woken.
void SpreadProcess::begin_wait_for_any(const ThreadPtr& thread) {
  const uint64_t count = std::min<uint64_t>(thread->entry.rsi, FUTEX_WAITV_MAX);
  read_memory(RemoteAddr{thread->entry.rdi}, count * sizeof(futex_waitv),
              [this, thread, alive = std::weak_ptr(alive_)](const Result<std::string>& read) {
                if (alive.expired() || thread->is_gone) return;
                std::vector<futex_waitv> words(read ? read->size() / sizeof(futex_waitv) : 0);
                if (read) std::memcpy(words.data(), read->data(), words.size() * sizeof words[0]);
                const bool is_ours = std::any_of(words.begin(), words.end(), [&](const auto& word) {
                  return parts_.memory.find(RemoteAddr{word.uaddr}).has_value();
                });
                is_ours ? skip(thread, -ENOSYS) : resume(thread);
              });
}

// The kernel goes on with a wait that it remembers: of the scratch word.
void SpreadProcess::begin_restart(const ThreadPtr& thread) {
  if (!thread->interrupted_wait) return resume(thread);
  const user_regs_struct now = thread->entry;
  thread->entry = *thread->interrupted_wait;
  thread->entry.rip = now.rip;
  begin_wait(thread, futex_operation(thread->entry) == FUTEX_WAIT ? kAllBits : thread->entry.r9);
}

// Stands behind the call in which it waited; whether it goes on with the kernel's restart.
bool SpreadProcess::end_wait(const ThreadPtr& thread, user_regs_struct& registers) {
  thread->waits = false;
  const bool was_woken = !futexes_.leave(own_ticket(thread));
  if (counts()) counts()->end_futex_wait(thread->traced->tid());
  user_regs_struct own = thread->entry;
  own.rip = registers.rip;
  own.rcx = registers.rcx;
  own.r11 = registers.r11;
  own.eflags = registers.eflags;
  own.rax = registers.rax;
  const auto result = static_cast<int64_t>(registers.rax);
  if (was_woken || result == -EAGAIN) own.rax = 0;
  const bool is_remembered = !was_woken && is_remembered_by_kernel(registers);
  const bool goes_on = is_remembered || (!was_woken && is_to_be_restarted(registers));
  own.orig_rax = goes_on ? uint64_t{SYS_futex} : ~0ULL;
  if (is_remembered) thread->interrupted_wait = thread->entry;
  registers = own;
  static_cast<void>(thread->traced->set_registers(own));
  return goes_on;
}

// --- waking -------------------------------------------------------------------------------------

size_t SpreadProcess::wake_futex(RemoteAddr address, uint32_t count, uint32_t bits) {
  const auto woken = futexes_.wake(futex_place(address), count, bits);
  for (const FutexQueues::Woken& waiter : woken) {
    const auto tid = static_cast<pid_t>(waiter.ticket.number);
    auto found = threads_.find(tid);
    if (found == threads_.end()) continue;
    if (counts()) counts()->end_futex_wait(tid);
    if (waiter.ticket.node == parts_.node.self) {
      parts_.scratch.open(found->second->slot);
      continue;
    }
    FutexWoken tell;
    tell.set = set().value;
    tell.tid = tid;
    parts_.pages->publish(waiter.ticket.node);
    ++answers_;
    static_cast<void>(parts_.node.messenger.send(waiter.ticket.node, tell));
  }
  return woken.size();
}

void SpreadProcess::requeue(const ThreadPtr& thread) {
  const user_regs_struct& call = thread->entry;
  const RemoteAddr from{call.rdi}, to{call.r8};
  if (static_cast<int32_t>(call.rdx) < 0 || static_cast<int32_t>(call.r10) < 0)
    return skip(thread, -EINVAL);
  const auto wake = static_cast<uint32_t>(call.rdx), move = static_cast<uint32_t>(call.r10);
  size_t moved = wake > 0 ? wake_futex(from, wake, kAllBits) : 0;
  moved += futexes_.requeue(futex_place(from), futex_place(to), move);
  skip(thread, static_cast<int64_t>(moved));
}

void SpreadProcess::begin_wake_op(const ThreadPtr& thread) {
  const user_regs_struct call = thread->entry;
  const RemoteAddr first{call.rdi}, second{call.r8};
  const auto offset = parts_.memory.offset_of(second, sizeof(uint32_t));
  if (!offset || second.value % sizeof(uint32_t) != 0) return skip(thread, -EFAULT);
  const auto encoded = static_cast<uint32_t>(call.r9);
  parts_.pages->update(
      *offset, [encoded](uint32_t old) { return operated(encoded, old); },
      [this, thread, call, first, second, encoded,
       alive = std::weak_ptr(alive_)](Result<uint32_t> old) {
        if (alive.expired() || thread->is_gone) return;
        if (!old) return skip(thread, -EFAULT);
        size_t woken = wake_futex(first, futex_count(call.rdx), kAllBits);
        if (compares(encoded, *old)) woken += wake_futex(second, futex_count(call.r10), kAllBits);
        skip(thread, static_cast<int64_t>(woken));
      });
}

// --- threads elsewhere --------------------------------------------------------------------------

void SpreadProcess::queue_futex(NodeId from, const QueueFutex& ask) {
  futexes_.wait(futex_place(RemoteAddr{ask.address}), ticket_of(ask.tid, from), ask.bits);
  if (counts()) counts()->begin_wait(ask.tid);
}

bool SpreadProcess::leave_futex(NodeId from, pid_t tid) {
  if (counts()) counts()->end_futex_wait(tid);
  return futexes_.leave(ticket_of(tid, from)).has_value();
}

Result<int64_t> SpreadProcess::wake_futex(const WakeFutex& ask) {
  if (has_native_waiters()) return errno_error("waiters of the kernel's", EAGAIN);
  return static_cast<int64_t>(wake_futex(RemoteAddr{ask.address}, ask.count, ask.bits));
}

}  // namespace krg
