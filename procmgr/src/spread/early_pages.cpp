// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread/early_pages.h"

#include <algorithm>
#include <utility>

#include "krg/runtime/log.h"

namespace krg {
namespace {

constexpr uint64_t kAny = 1;          // a capture's number that nobody asks for
constexpr uint64_t kRoomForMore = 8;  // a part of what is mapped: what may be mapped till then
constexpr uint64_t kLeastMore = 1u << 20;

}  // namespace

void EarlyPages::read(std::function<void()> done) {
  const uint64_t mapped = bytes_of(ranges_);
  const uint64_t more = std::max(mapped / kRoomForMore / kPageBytes * kPageBytes, kLeastMore);
  auto room = SetPages::make(mapped + more);
  if (!room) return done();
  copies_ = std::move(*room);
  auto content = std::make_shared<PageMarks>();
  auto reader = std::make_shared<SpreadReader>(pages_, ranges_);
  reader->read(
      [self = shared_from_this(), content](RemoteAddr at, PageIndex page,
                                           std::span<const std::byte> bytes) {
        content->add(page);
        return self->copies_->add(at, bytes);
      },
      [self = shared_from_this(), content, done = std::move(done)](const Status& read) {
        if (!read) {
          log_debug("spread", "pages ahead of a checkpoint: {}", read.error().message());
          self->copies_.reset();
        } else {
          self->known_.replace(kAny, self->ranges_, std::move(*content));
          self->is_whole_ = true;
        }
        done();
      });
}

SetPages EarlyPages::take(const std::vector<SpreadRange>& same) {
  is_whole_ = false;
  SetPages kept = std::move(*std::exchange(copies_, std::nullopt));
  kept.keep(same);
  return kept;
}

}  // namespace krg
