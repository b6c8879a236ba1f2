// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_child.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <csignal>
#include <utility>

#include "call_registers.h"
#include "image/page_list.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"

namespace krg {
namespace {

constexpr uint64_t kMapFlags =
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE | kUnnotifiedMapFlags;

}  // namespace

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
  if (auto mapped = map_ranges(); !mapped) return cancel(mapped.error());
  copy_next();
}

Status SpreadChild::map_ranges() {
  for (const SpreadRange& range : request_.ranges) {
    const int64_t at =
        thread_->call(request_.instruction, SYS_mmap,
                      {range.start.value, range.bytes, range.protection, kMapFlags, ~0ULL, 0});
    if (at != static_cast<int64_t>(range.start.value))
      return errno_error("memory of its own", static_cast<int>(at < 0 ? -at : EEXIST));
  }
  if (request_.memory_fd)
    thread_->call(request_.instruction, SYS_close, {static_cast<uint64_t>(*request_.memory_fd)});
  return {};
}

void SpreadChild::copy_next() {
  if (!done_) return;  // it has died
  if (next_range_ == request_.ranges.size()) return finish();
  const SpreadRange& range = request_.ranges[next_range_++];
  request_.pages->visit(
      range.first, range.bytes / kPageBytes,
      [self = shared_from_this(), range](PageIndex page, std::span<const std::byte> bytes) {
        self->copy(range, page, bytes);
      },
      [self = shared_from_this()](const Status& visited) {
        visited ? self->copy_next() : self->cancel(visited.error());
      });
}

void SpreadChild::copy(const SpreadRange& range, PageIndex page, std::span<const std::byte> bytes) {
  if (!done_ || is_zero_page(bytes.data())) return;
  const MemoryPiece piece{range.start + (page.value - range.first.value) * kPageBytes,
                          bytes.size()};
  if (auto written = memory_->write({&piece, 1}, bytes); !written) cancel(written.error());
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
  if (auto done = std::exchange(done_, nullptr)) done();
}

}  // namespace krg
