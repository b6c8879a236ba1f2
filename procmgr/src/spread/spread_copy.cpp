// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_copy.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <utility>

#include "image/page_list.h"
#include "krg/procmgr/unnotified_cookie.h"

namespace krg {
namespace {

constexpr uint64_t kMapFlags =
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE | kUnnotifiedMapFlags;

}  // namespace

Status SpreadCopy::map(FrozenThread& task, RemoteAddr instruction) const {
  for (const SpreadRange& range : ranges_) {
    const int64_t at =
        task.call(instruction, SYS_mmap,
                  {range.start.value, range.bytes, range.protection, kMapFlags, ~0ULL, 0});
    if (at != static_cast<int64_t>(range.start.value))
      return errno_error("memory of its own", static_cast<int>(at < 0 ? -at : EEXIST));
  }
  return {};
}

void SpreadCopy::fill(pid_t task, std::function<void(Status)> done) {
  done_ = std::move(done);
  auto memory = TaskMemory::open(task);
  if (!memory) return end(memory.error());
  memory_ = std::move(*memory);
  copy_next();
}

void SpreadCopy::copy_next() {
  if (!done_) return;  // it has died
  if (next_range_ == ranges_.size()) return end({});
  const SpreadRange& range = ranges_[next_range_++];
  pages_->visit(
      range.first, range.bytes / kPageBytes,
      [self = shared_from_this(), range](PageIndex page, std::span<const std::byte> bytes) {
        self->copy(range, page, bytes);
      },
      [self = shared_from_this()](const Status& visited) {
        visited ? self->copy_next() : self->end(visited);
      });
}

void SpreadCopy::copy(const SpreadRange& range, PageIndex page, std::span<const std::byte> bytes) {
  if (!done_ || is_zero_page(bytes.data())) return;
  const MemoryPiece piece{range.start + (page.value - range.first.value) * kPageBytes,
                          bytes.size()};
  if (auto written = memory_->write({&piece, 1}, bytes); !written) end(written);
}

void SpreadCopy::end(const Status& how) {
  if (auto done = std::exchange(done_, nullptr)) done(how);
}

}  // namespace krg
