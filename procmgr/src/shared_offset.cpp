// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_offset.h"

namespace krg {

// It may have been moved though that is not told yet.
void SharedOffset::notice_move(int64_t now) {
  int64_t by = moves_->in_all - seen_moved_;
  if (now == at_ + pending_) by = pending_;
  at_ += by;
  pending_ -= by;
  seen_moved_ += by;
}

SharedOffset::Read SharedOffset::begin(int64_t offset, int64_t now) {
  notice_move(now);
  const bool goes_on = has_next_ && read_began_ == now && offset == at_ && offset != now;
  if (offset != now && !goes_on) return {};
  if (!goes_on) read_began_ = now;
  // A seek from where it was, which is to be moved, too.
  if (offset != at_) return {.is_at_offset = true, .sought = offset + pending_};
  return {.is_at_offset = true};
}

int64_t SharedOffset::end(int64_t offset, int64_t was_at, int64_t got, int64_t size) {
  at_ = offset + got;
  has_next_ = got == size;
  const int64_t by = was_at - offset - pending_;
  pending_ += by;
  return by;
}

std::optional<SharedOffset::Seek> SharedOffset::take_seek(int64_t now, bool may_be_reading) {
  notice_move(now);
  if (now == at_ || (may_be_reading && now == read_began_)) return std::nullopt;
  const Seek seek{at_ + pending_, now + pending_};
  at_ = now;
  return seek;
}

}  // namespace krg
