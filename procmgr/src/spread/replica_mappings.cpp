// Replica: what it learns of mappings when a thread touches what it does not know yet. A thread
// that touches what home does not know either, or what is at home only, goes home.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>

#include "image/capture_parts.h"
#include "krg/procmgr/unnotified_cookie.h"
#include "krg/runtime/log.h"
#include "spread/replica.h"

namespace krg {

void Replica::ask_mapping(const ThreadPtr& thread) {
  auto info = thread->traced->signal_info();
  if (!info) return;
  if (info->si_code != SEGV_MAPERR && info->si_code != SEGV_ACCERR) return send_home(thread, false);
  const RemoteAddr address{reinterpret_cast<uint64_t>(info->si_addr)};
  AskMapping ask;
  ask.set = parts_.set.value;
  ask.address = address.value;
  parts_.node.messenger.request(parts_.home, ask, {},
                                [this, address, before = learnt_, alive = std::weak_ptr(alive_),
                                 weak = std::weak_ptr(thread)](Result<std::string> reply) {
                                  auto thread = weak.lock();
                                  if (alive.expired() || !thread) return;
                                  auto known = reply ? KnownMapping::parse(*reply)
                                                     : Result<KnownMapping>(reply.error());
                                  if (!known) return send_home(thread, false);
                                  learn(thread, address, before, *known);
                                });
}

// What another thread has learnt since may be what this one met. It may have learnt that even
// before this one's stop was seen: so who meets what is known already touches it once more.
void Replica::learn(const ThreadPtr& thread, RemoteAddr address, uint64_t learnt_before,
                    const KnownMapping& known) {
  enqueue([this, thread, address, learnt_before, known](std::function<void()> next) {
    const bool may_be_known = known.kind != KnownMapping::Kind::kNothing;
    const auto learnt = [=, this, next = std::move(next)](bool is_new) {
      learnt_ += is_new;
      const bool was_met = std::exchange(thread->met, address) == address;
      if (thread->is_recalled)
        send_home(thread, false);
      else if (learnt_ != learnt_before || (may_be_known && !was_met))
        thread->traced->resume(kSystemCallsAreOurs);
      else
        send_home(thread, false);
      next();
    };
    switch (known.kind) {
      case KnownMapping::Kind::kNothing:
        return learnt(false);
      case KnownMapping::Kind::kPages:
        return learn_pages(known, address, learnt);
      case KnownMapping::Kind::kFile: {
        auto same = files_.find(address);
        if (same && same->protection == known.range.protection) return learnt(false);
        return learn_file(known, learnt);
      }
    }
  });
}

// Mapped already, it may have another protection by now.
void Replica::learn_pages(const KnownMapping& known, RemoteAddr address,
                          const std::function<void(bool)>& done) {
  if (known.set_pages > parts_.pages.pages() && !parts_.pages.resize(known.set_pages))
    return done(false);
  const SpreadRange& range = known.range;
  auto same = memory_.find(address);
  if (same && same->first.value + (address.value - same->start.value) / kPageBytes ==
                  range.first.value + (address.value - range.start.value) / kPageBytes) {
    if (same->protection == range.protection) return done(false);
    const RemoteAddr start = std::max(same->start, range.start);
    const uint64_t bytes = std::min(same->end(), range.end()).value - start.value;
    memory_.protect(start, bytes, range.protection);
    return keeper_->call(instruction_, SYS_mprotect, {start.value, bytes, range.protection},
                         [done](int64_t result) { done(result == 0); });
  }
  map(range, [done](const Status& mapped) {
    if (!mapped) log_warn("spread", "mappings: {}", mapped.error().message());
    done(mapped.has_value());
  });
}

// The keeper opens it by a path in memory that the process has at home only.
void Replica::learn_file(const KnownMapping& known, std::function<void(bool)> done) {
  auto here = identify_file(known.file.path);
  if (!here || *here != known.file || known.file.path.size() >= kPageBytes) return done(false);
  auto open = [this, known, done] {
    const std::string& path = known.file.path;
    const iovec local{const_cast<char*>(path.c_str()), path.size() + 1};
    const iovec remote{reinterpret_cast<void*>(known.scratch.value), path.size() + 1};
    if (process_vm_writev(pid(), &local, 1, &remote, 1, 0) < 0) return done(false);
    keeper_->call(instruction_, SYS_openat,
                  {static_cast<uint64_t>(AT_FDCWD), known.scratch.value, O_RDONLY | O_CLOEXEC},
                  [this, known, done](int64_t file) {
                    file < 0 ? done(false) : map_file(known, file, done);
                  });
  };
  if (has_scratch_) return open();
  keeper_->call(instruction_, SYS_mmap,
                {known.scratch.value, kPageBytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | kUnnotifiedMapFlags, ~0ULL, 0},
                [this, open, done](int64_t at) {
                  has_scratch_ = at > 0;
                  has_scratch_ ? open() : done(false);
                });
}

void Replica::map_file(const KnownMapping& known, int64_t file, std::function<void(bool)> done) {
  const SpreadRange& range = known.range;
  keeper_->call(
      instruction_, SYS_mmap,
      {range.start.value, range.bytes, range.protection,
       MAP_PRIVATE | MAP_FIXED | kUnnotifiedMapFlags, static_cast<uint64_t>(file), known.offset},
      [this, range, file, done = std::move(done)](int64_t at) {
        const bool is_mapped = at == static_cast<int64_t>(range.start.value);
        files_.unmap(range.start, range.bytes);
        if (is_mapped) files_.map(range);
        if (is_mapped) breakpoints_.set_again(pid(), range.start, range.bytes);
        keeper_->call(instruction_, SYS_close, {static_cast<uint64_t>(file)},
                      [done, is_mapped](int64_t) { done(is_mapped); });
      });
}

}  // namespace krg
