// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_child.h"

#include <sched.h>
#include <sys/syscall.h>

#include <csignal>
#include <utility>

#include "call_registers.h"
#include "krg/runtime/log.h"

namespace krg {

void SpreadChild::begin() {
  request_.reaper.watch_new_tracee(
      child_, [self = shared_from_this()](const ChildEvent& event) { self->on_event(event); });
}

void SpreadChild::on_event(const ChildEvent& event) {
  const auto self = shared_from_this();
  if (event.is_end()) {
    if (thread_) thread_->forget();
    return end();
  }
  if (thread_) return;
  auto stopped = FrozenThread::stopped(child_, TraceStop::from(event.status).signal);
  if (!stopped) return cancel(stopped.error());
  thread_.emplace(std::move(*stopped));
  auto memory = TaskMemory::open(child_);
  if (!memory) return cancel(memory.error());
  memory_ = std::move(*memory);
  copy_ = std::make_shared<SpreadCopy>(request_.pages, request_.ranges);
  if (auto mapped = copy_->map(*thread_, request_.instruction); !mapped)
    return cancel(mapped.error());
  if (request_.memory_fd)
    thread_->call(request_.instruction, SYS_close, {static_cast<uint64_t>(*request_.memory_fd)});
  copy_->fill(child_, [self](const Status& filled) {
    filled ? self->finish() : self->cancel(filled.error());
  });
}

// As CLONE_CHILD_SETTID and CLONE_CHILD_CLEARTID ask for it.
void SpreadChild::put_number() {
  const user_regs_struct& call = request_.call;
  if (call.orig_rax != SYS_clone) return;
  const MemoryPiece place{RemoteAddr{call.r10}, sizeof child_};
  if (call.rdi & CLONE_CHILD_SETTID)
    static_cast<void>(memory_->write({&place, 1}, std::as_bytes(std::span(&child_, 1))));
  if (call.rdi & CLONE_CHILD_CLEARTID)
    thread_->call(request_.instruction, SYS_set_tid_address, {call.r10});
}

// It goes on behind its parent's call.
void SpreadChild::finish() {
  put_number();
  user_regs_struct own = request_.registers;
  own.rax = 0;
  own.orig_rax = kNoRestart;
  own.rsp = thread_->registers().rsp;
  own.fs_base = thread_->registers().fs_base;
  thread_->set_registers(own);
  thread_->set_signal_mask(request_.signal_mask);
  request_.reaper.unwatch_tracee(child_);
  thread_->let_go();
  end();
}

void SpreadChild::cancel(const Error& why) {
  if (!done_) return;
  log_error("spread", "process {}, a fork's child, is killed: {}", child_, why.message());
  kill(child_, SIGKILL);
  request_.reaper.unwatch_tracee(child_);
  if (thread_) thread_->forget();
  end();
}

void SpreadChild::end() {
  if (copy_) copy_->cancel();
  if (auto done = std::exchange(done_, nullptr)) done();
}

}  // namespace krg
