// SpreadProcess: system calls of its threads that change mappings. New private memory is pages of
// the set. A replica shows only what its threads have touched: of what is new it hears when it asks
// (mapping_at), of what is no longer so it has heard before the call returns.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>

#include "krg/procmgr/unnotified_cookie.h"
#include "spread/spread_process.h"
#include "spread/spread_writers.h"

namespace krg {
namespace {

constexpr uint64_t kKeptFlags = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_32BIT;
constexpr uint64_t kMapFlags = MAP_SHARED | MAP_NORESERVE | kUnnotifiedMapFlags;
constexpr uint64_t kReserveFlags =
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | kUnnotifiedMapFlags;
constexpr size_t kGrowthStep = 16384;  // pages
constexpr uint64_t kMostNewBytes = uint64_t{16} << 30;

bool is_spreadable(const user_regs_struct& map) {
  return (map.r10 & MAP_TYPE) == MAP_PRIVATE && !(map.r10 & MAP_HUGETLB) && map.rsi > 0 &&
         map.rsi <= kMostNewBytes;
}

bool is_private_memory(const user_regs_struct& map) {
  return is_spreadable(map) && (map.r10 & MAP_ANONYMOUS);
}

bool is_writable_file(const user_regs_struct& map) {
  return is_spreadable(map) && !(map.r10 & MAP_ANONYMOUS) && (map.rdx & PROT_WRITE);
}

ChangeMemory change_of(SetId set, ChangeMemory::Kind kind, RemoteAddr start, uint64_t bytes) {
  ChangeMemory change;
  change.kind = kind;
  change.set = set.value;
  change.start = start.value;
  change.bytes = whole_pages(bytes);
  return change;
}

// Whether who may do `before` may do `after`, too.
bool is_wider(uint32_t after, uint32_t before) {
  return (after & before) == before;
}

}  // namespace

Status SpreadProcess::grow() {
  const size_t wanted = parts_.memory.set_pages();
  if (wanted <= parts_.pages->pages()) return {};
  return parts_.pages->resize((wanted + kGrowthStep - 1) / kGrowthStep * kGrowthStep);
}

bool SpreadProcess::begin_change(const ThreadPtr& thread) {
  switch (thread->number) {
    case SYS_mmap:
    case SYS_munmap:
    case SYS_mremap:
    case SYS_mprotect:
    case SYS_brk:
    case SYS_shmat:
    case SYS_shmdt:
    case SYS_fork:
      break;
    case SYS_clone:
      if (thread->entry.rdi & CLONE_VM) return true;
      break;
    default:
      return true;
  }
  if (changer_ && changer_ != thread) {
    changers_.push_back(thread);
    return false;
  }
  changer_ = thread;
  return true;
}

void SpreadProcess::end_change(const ThreadPtr& thread) {
  std::erase(changers_, thread);  // it has died
  if (changer_ != thread) return;
  changer_.reset();
  if (capture_ && thread != capture_turn_) return try_to_stand();
  if (changers_.empty()) return;
  const ThreadPtr next = changers_.front();
  changers_.pop_front();
  on_entry(next);
}

// --- new memory ---------------------------------------------------------------------------------

void SpreadProcess::begin_map(const ThreadPtr& thread) {
  if (!is_private_memory(thread->entry)) return resume(thread);
  user_regs_struct call = thread->entry;
  SpreadRange range;
  range.bytes = whole_pages(call.rsi);
  range.protection = static_cast<uint32_t>(call.rdx);
  range.first = parts_.memory.take_pages(range.bytes);
  thread->maps = range;
  if (auto grown = grow(); !grown) {
    parts_.memory.give_back(range);
    thread->maps.reset();
    return skip(thread, -ENOMEM);
  }
  call.r10 = (call.r10 & kKeptFlags) | kMapFlags;
  call.r8 = static_cast<uint64_t>(parts_.memory_fd);
  call.r9 = range.first.value * kPageBytes;
  change_call(thread, call);
}

void SpreadProcess::after_map(const ThreadPtr& thread, RemoteAddr at) {
  const auto done = [this, thread] { finish(thread); };
  if (!thread->maps) {
    if (!is_writable_file(thread->entry)) return unmap_everywhere(at, thread->entry.rsi, done);
    return unmap_everywhere(at, thread->entry.rsi, [this, thread, at, done] {
      SpreadRange range;
      range.start = at;
      range.bytes = whole_pages(thread->entry.rsi);
      range.protection = static_cast<uint32_t>(thread->entry.rdx);
      note_writers(at, range.bytes, true);
      convert(thread, range, true, done);
    });
  }
  SpreadRange range = *thread->maps;
  range.start = at;
  const auto gone = parts_.memory.unmap(at, range.bytes);
  parts_.memory.map(range);
  note_writers(at, range.bytes, has_one_writer(range.bytes, range.protection, thread->entry.r10));
  name_memory(at, range.bytes, fmt::format("a mapping of {} KiB", range.bytes / 1024));
  if (auto attached = parts_.pages->attach_beside(parts_.pid, range.start, range.first,
                                                  range.bytes / kPageBytes);
      !attached)
    fail(attached.error().message());
  tell_replicas(change_of(set(), ChangeMemory::Kind::kUnmap, at, range.bytes), [this, gone, done] {
    free_pages(gone);
    done();
  });
}

// The heap: the kernel makes native memory of it first.
void SpreadProcess::after_brk(const ThreadPtr& thread, uint64_t result) {
  const uint64_t before = whole_pages(std::exchange(parts_.brk, result));
  const uint64_t now = whole_pages(result);
  const auto done = [this, thread] { finish(thread); };
  if (now == before) return done();
  if (now > before) name_memory(RemoteAddr{before}, now - before, "[heap]");
  if (now < before) return unmap_everywhere(RemoteAddr{now}, before - now, done);
  SpreadRange range;
  range.start = RemoteAddr{before};
  range.bytes = now - before;
  range.protection = PROT_READ | PROT_WRITE;
  convert(thread, range, false, done);
}

void SpreadProcess::convert(const ThreadPtr& thread, SpreadRange range, bool has_contents,
                            std::function<void()> done) {
  range.first = parts_.memory.take_pages(range.bytes);
  if (auto grown = grow(); !grown) {  // at home only
    parts_.memory.give_back(range);
    return done();
  }
  auto put = [this, thread, range, done = std::move(done)] { put_pages(thread, range, done); };
  if (!has_contents) return put();
  // What lies behind the file's end cannot be read, nor touched.
  std::string contents(range.bytes, '\0');
  const iovec local{contents.data(), contents.size()};
  const iovec remote{reinterpret_cast<void*>(range.start.value), range.bytes};
  process_vm_readv(parts_.pid, &local, 1, &remote, 1, 0);
  parts_.pages->write(range.first.value * kPageBytes, contents,
                      [this, put, alive = std::weak_ptr(alive_)](const Status& written) {
                        if (alive.expired()) return;
                        if (!written) return fail(written.error().message());
                        put();
                      });
}

void SpreadProcess::put_pages(const ThreadPtr& thread, const SpreadRange& range,
                              std::function<void()> done) {
  thread->traced->call(
      parts_.instruction, SYS_mmap,
      {range.start.value, range.bytes, range.protection, kMapFlags | MAP_FIXED,
       static_cast<uint64_t>(parts_.memory_fd), range.first.value * kPageBytes},
      [this, range, done = std::move(done), alive = std::weak_ptr(alive_)](int64_t at) {
        if (alive.expired() || at == -ESRCH) return;
        if (at != static_cast<int64_t>(range.start.value)) return fail("its memory is not mapped");
        if (auto attached = parts_.pages->attach_beside(parts_.pid, range.start, range.first,
                                                        range.bytes / kPageBytes);
            !attached)
          return fail(attached.error().message());
        parts_.memory.map(range);
        done();
      });
}

// --- memory that moves --------------------------------------------------------------------------

// Of the page set it shrinks where it is; when it grows, its pages get another address, and further
// ones behind them.
void SpreadProcess::begin_remap(const ThreadPtr& thread) {
  user_regs_struct call = thread->entry;
  const RemoteAddr start{call.rdi};
  const uint64_t old_bytes = whole_pages(call.rsi), new_bytes = whole_pages(call.rdx);
  const auto ranges = parts_.memory.in(start, std::max<uint64_t>(old_bytes, 1));
  if (ranges.empty()) return resume(thread);
  if (new_bytes == 0 || (call.r10 & ~uint64_t{MREMAP_MAYMOVE})) return skip(thread, -EINVAL);
  if (new_bytes == old_bytes) return skip(thread, static_cast<int64_t>(start.value));
  if (new_bytes < old_bytes) {
    call.orig_rax = SYS_munmap;
    call.rdi = start.value + new_bytes;
    call.rsi = old_bytes - new_bytes;
    return change_call(thread, call);
  }
  uint64_t found = 0;
  for (const SpreadRange& range : ranges) found += range.bytes;
  if (found != old_bytes || old_bytes == 0) return skip(thread, -EFAULT);
  if (!(call.r10 & MREMAP_MAYMOVE) || new_bytes > kMostNewBytes) return skip(thread, -ENOMEM);
  SpreadRange more;
  more.bytes = new_bytes - old_bytes;
  more.protection = ranges.back().protection;
  more.first = parts_.memory.take_pages(more.bytes);
  if (!grow()) {
    parts_.memory.give_back(more);
    return skip(thread, -ENOMEM);
  }
  thread->maps = more;
  call.orig_rax = SYS_mmap;
  call.rdi = 0;
  call.rsi = new_bytes;
  call.rdx = PROT_NONE;
  call.r10 = kReserveFlags;
  call.r8 = ~0ULL;
  call.r9 = 0;
  change_call(thread, call);
}

void SpreadProcess::after_shrink(const ThreadPtr& thread) {
  const user_regs_struct& call = thread->entry;
  auto registers = thread->traced->registers();
  if (!registers) return;
  registers->rax = call.rdi;
  static_cast<void>(thread->traced->set_registers(*registers));
  const uint64_t kept = whole_pages(call.rdx);
  unmap_everywhere(RemoteAddr{call.rdi + kept}, whole_pages(call.rsi) - kept,
                   [this, thread] { finish(thread); });
}

// `to`: where the addresses are reserved. Nobody else may use the old ones any more, then the pages
// are mapped at the new ones.
void SpreadProcess::move_pages(const ThreadPtr& thread, RemoteAddr to) {
  const RemoteAddr from{thread->entry.rdi};
  const uint64_t bytes = whole_pages(thread->entry.rsi);
  auto ranges = std::make_shared<std::vector<SpreadRange>>(parts_.memory.in(from, bytes));
  for (SpreadRange& range : *ranges) range.start = to + (range.start.value - from.value);
  ranges->push_back(*thread->maps);
  ranges->back().start = to + bytes;
  parts_.memory.unmap(from, bytes);
  tell_replicas(change_of(set(), ChangeMemory::Kind::kUnmap, from, bytes),
                [this, thread, ranges] { move_next(thread, ranges); });
}

void SpreadProcess::move_next(const ThreadPtr& thread,
                              const std::shared_ptr<std::vector<SpreadRange>>& ranges) {
  if (!ranges->empty()) {
    const SpreadRange range = ranges->back();
    ranges->pop_back();
    return put_pages(thread, range, [this, thread, ranges] { move_next(thread, ranges); });
  }
  const user_regs_struct& call = thread->entry;
  thread->traced->call(parts_.instruction, SYS_munmap, {call.rdi, whole_pages(call.rsi)},
                       [this, thread, alive = std::weak_ptr(alive_)](int64_t result) {
                         if (!alive.expired() && result != -ESRCH) finish(thread);
                       });
}

// --- what is no longer so -----------------------------------------------------------------------

void SpreadProcess::unmap_everywhere(RemoteAddr start, uint64_t bytes, std::function<void()> done) {
  const auto gone = parts_.memory.unmap(start, bytes);
  tell_replicas(change_of(set(), ChangeMemory::Kind::kUnmap, start, bytes),
                [this, gone, done = std::move(done)] {
                  free_pages(gone);
                  done();
                });
}

// Memory that is at home only may be written there from now on: replicas must not show it. Who may
// do more than before need not be told: he asks.
void SpreadProcess::protect_everywhere(RemoteAddr start, uint64_t bytes, uint32_t protection,
                                       std::function<void()> done) {
  const RemoteAddr end = start + whole_pages(bytes);
  std::vector<ChangeMemory> changes;
  const auto unmap = [&](RemoteAddr from, RemoteAddr to) {
    if (from < to)
      changes.push_back(change_of(set(), ChangeMemory::Kind::kUnmap, from, to.value - from.value));
  };
  RemoteAddr at = start;
  for (const SpreadRange& range : parts_.memory.in(start, bytes)) {
    unmap(at, range.start);
    at = range.end();
    if (is_wider(protection, range.protection)) continue;
    changes.push_back(change_of(set(), ChangeMemory::Kind::kProtect, range.start, range.bytes));
    changes.back().protection = protection;
  }
  unmap(at, end);
  parts_.memory.protect(start, bytes, protection);
  auto left = std::make_shared<size_t>(changes.size() + 1);
  const auto changed = [left, done = std::move(done)] {
    if (--*left == 0) done();
  };
  for (const ChangeMemory& change : changes) tell_replicas(change, changed);
  changed();
}

void SpreadProcess::free_pages(const std::vector<SpreadRange>& ranges) {
  for (const SpreadRange& range : ranges)
    parts_.pages->discard(range.first, range.bytes / kPageBytes,
                          [this, range, alive = std::weak_ptr(alive_)] {
                            if (!alive.expired()) parts_.memory.give_back(range);
                          });
}

}  // namespace krg
