// SpreadProcess: fork. All threads stand still, here and elsewhere: the child gets what memory was
// in one moment. The kernel gives it nothing of the page set (MADV_DONTFORK), so nothing of it is
// ever served: SpreadChild brings the contents. Nothing else changes mappings meanwhile
// (begin_change).
// SPDX-License-Identifier: GPL-2.0-or-later
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "spread/spread_child.h"
#include "spread/spread_process.h"

namespace krg {
namespace {

// For threads that cannot stop: in vfork, in a disk's hands.
constexpr std::chrono::seconds kLongestHold{5};
// The child's number is for memory that it does not have yet; and nobody waits for the child while
// krgd makes its memory.
constexpr uint64_t kKeptBack =
    CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_VFORK | CLONE_UNTRACED;

// As they lie side by side. `first` means nothing.
std::vector<SpreadRange> joined(const std::vector<SpreadRange>& ranges) {
  std::vector<SpreadRange> all;
  for (const SpreadRange& range : ranges) {
    if (!all.empty() && all.back().end() == range.start)
      all.back().bytes += range.bytes;
    else
      all.push_back(range);
  }
  return all;
}

}  // namespace

// Stands at the call's entry. `call`: the fork(2) or clone(2) that it is.
void SpreadProcess::begin_fork(const ThreadPtr& thread, const user_regs_struct& call) {
  fork_ = std::make_shared<Fork>();
  fork_->thread = thread;
  fork_->call = call;
  fork_->ranges = joined(parts_.memory.all());
  SpreadRange scratch;
  scratch.start = parts_.scratch.address_of(0);
  scratch.bytes = SpreadScratch::kBytes;
  fork_->ranges.push_back(scratch);
  fork_->limit = parts_.node.loop.after(kLongestHold, [this, thread] {
    log_warn("spread", "pid {} cannot fork: a thread does not stop", parts_.pid);
    end_fork();
    skip(thread, -EAGAIN);
  });
  hold_others(thread, [this, thread] {
    fork_->limit.reset();
    user_regs_struct none = thread->entry;
    none.orig_rax = ~0ULL;
    static_cast<void>(thread->traced->set_registers(none));
    thread->forks = true;
    resume(thread);
  });
}

void SpreadProcess::hold_others(const ThreadPtr& thread, std::function<void()> done) {
  auto left = std::make_shared<size_t>(threads_.size() + parts_.nodes.size());
  const auto stands = [this, left, done = std::move(done), fork = std::weak_ptr(fork_),
                       alive = std::weak_ptr(alive_)] {
    if (--*left == 0 && !alive.expired() && !fork.expired()) done();
  };
  HoldThreads ask;
  ask.set = set().value;
  for (NodeId node : parts_.nodes)
    parts_.node.messenger.request(node, ask, {},
                                  [stands](const Result<std::string>&) { stands(); });
  for (const auto& [tid, other] : std::map(threads_))
    if (other != thread) other->traced->hold(stands);
  stands();
}

// Stands behind the call, which the kernel has not carried out.
void SpreadProcess::fork_next(const ThreadPtr& thread) {
  if (!fork_ || fork_->thread != thread) return;
  if (fork_->next == fork_->ranges.size()) return make_child(thread);
  const SpreadRange& range = fork_->ranges[fork_->next++];
  thread->traced->call(parts_.instruction, SYS_madvise,
                       {range.start.value, range.bytes, MADV_DONTFORK},
                       [this, thread, alive = std::weak_ptr(alive_)](int64_t result) {
                         if (alive.expired() || thread->is_gone || result == -ESRCH) return;
                         result < 0 ? finish_fork(thread, -ENOMEM) : fork_next(thread);
                       });
}

void SpreadProcess::make_child(const ThreadPtr& thread) {
  const user_regs_struct call = fork_->call;
  static_cast<void>(thread->traced->set_options(kTraceOptions | PTRACE_O_TRACEFORK));
  thread->traced->call(
      parts_.instruction, static_cast<long>(call.orig_rax),
      {call.rdi & ~uint64_t{kKeptBack}, call.rsi, call.rdx, call.r10, call.r8, kUnnotifiedCookie},
      [this, thread, alive = std::weak_ptr(alive_)](int64_t result) {
        if (alive.expired() || thread->is_gone || result == -ESRCH) return;
        static_cast<void>(thread->traced->set_options(kTraceOptions));
        if (!fork_ || fork_->child == 0) return finish_fork(thread, result);
        fill_child(thread, result);
      },
      [fork = fork_](pid_t child) { fork->child = child; });
}

void SpreadProcess::fill_child(const ThreadPtr& thread, int64_t result) {
  const user_regs_struct& call = fork_->call;
  if (inspection_) inspection_->breakpoints.take_from(fork_->child);
  const bool shares_files = call.orig_rax == SYS_clone && (call.rdi & CLONE_FILES) != 0;
  SpreadChild::Request request{.reaper = *parts_.node.children,
                               .pages = parts_.pages,
                               .ranges = parts_.memory.all(),
                               .memory_fd = parts_.memory_fd,
                               .instruction = parts_.instruction,
                               .call = call,
                               .registers = thread->entry,
                               .signal_mask = 0};
  if (shares_files) request.memory_fd.reset();
  ptrace(PTRACE_GETSIGMASK, thread->traced->tid(), sizeof request.signal_mask,
         &request.signal_mask);
  fork_->filled = std::make_shared<SpreadChild>(
      std::move(request), fork_->child, [this, thread, result, alive = std::weak_ptr(alive_)] {
        if (!alive.expired() && !thread->is_gone) finish_fork(thread, result);
      });
  fork_->filled->begin();
}

void SpreadProcess::finish_fork(const ThreadPtr& thread, int64_t result) {
  if (auto registers = thread->traced->registers()) {
    registers->rax = static_cast<uint64_t>(result);
    static_cast<void>(thread->traced->set_registers(*registers));
  }
  end_fork();
  finish(thread);
}

void SpreadProcess::end_fork() {
  if (!fork_) return;
  if (auto child = std::exchange(fork_, nullptr)->filled)
    child->cancel(errno_error("its parent has died", ESRCH));
  HoldThreads tell;
  tell.set = set().value;
  for (NodeId node : parts_.nodes) static_cast<void>(parts_.node.messenger.send(node, tell));
  if (is_held()) return;
  for (const auto& [tid, thread] : std::map(threads_)) thread->traced->release();
}

}  // namespace krg
