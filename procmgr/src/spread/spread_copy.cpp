// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/spread_copy.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "image/page_list.h"
#include "krg/procmgr/unnotified_cookie.h"

namespace krg {
namespace {

constexpr uint64_t kMapFlags =
    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE | kUnnotifiedMapFlags;
// In one turn of the loop: a page that comes to have several writers in between has one again when
// it is asked for.
constexpr uint64_t kReadTogether = 256 * kPageBytes;

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

void SpreadCopy::fill(pid_t task, std::function<void(Status)> done,
                      std::function<void(PageIndex)> copied) {
  auto opened = TaskMemory::open(task);
  if (!opened) return done(opened.error());
  auto memory = std::make_shared<TaskMemory>(std::move(*opened));
  reader_->read(
      [memory, copied = std::move(copied)](RemoteAddr at, PageIndex page,
                                           std::span<const std::byte> bytes) -> Status {
        const MemoryPiece piece{at, bytes.size()};
        auto written = memory->write({&piece, 1}, bytes);
        if (written && copied) copied(page);
        return written;
      },
      std::move(done));
}

void SpreadReader::read(Use use, std::function<void(Status)> done) {
  use_ = std::move(use);
  done_ = std::move(done);
  read_next();
}

void SpreadReader::read_next() {
  if (!done_) return;  // it has been cancelled, or has ended
  while (next_range_ < ranges_.size() && next_ == ranges_[next_range_].bytes) {
    ++next_range_;
    next_ = 0;
  }
  if (next_range_ == ranges_.size()) return end({});
  SpreadRange range = ranges_[next_range_];
  range.start = range.start + next_;
  range.first = PageIndex{range.first.value + next_ / kPageBytes};
  range.bytes = std::min(range.bytes - next_, kReadTogether);
  next_ += range.bytes;
  pages_->visit(
      range.first, range.bytes / kPageBytes,
      [self = shared_from_this(), range](PageIndex page, std::span<const std::byte> bytes) {
        if (!self->done_ || is_zero_page(bytes.data())) return;
        const RemoteAddr at = range.start + (page.value - range.first.value) * kPageBytes;
        if (auto used = self->use_(at, page, bytes); !used) self->end(used);
      },
      [self = shared_from_this()](const Status& visited) {
        visited ? self->read_next() : self->end(visited);
      });
}

void SpreadReader::end(const Status& how) {
  if (auto done = std::exchange(done_, nullptr)) done(how);
}

}  // namespace krg
