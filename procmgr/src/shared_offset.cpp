// SPDX-License-Identifier: GPL-2.0-or-later
#include "shared_offset.h"

namespace krg {

// ---- the moves ----

void SharedOffset::Moves::add(int64_t by) {
  const std::lock_guard lock(adding_);
  to_make_.push_back(by);
}

std::optional<int64_t> SharedOffset::Moves::next() {
  const std::lock_guard lock(adding_);
  return to_make_.empty() ? std::nullopt : std::optional(to_make_.front());
}

void SharedOffset::Moves::carry_out(const std::function<bool(int64_t)>& seek) {
  const std::lock_guard lock(making_);
  ++under_way_;
  for (auto by = next(); by && seek(*by); by = next()) {
    ++made_;
    const std::lock_guard also_lock(adding_);
    to_make_.pop_front();
  }
  --under_way_;
}

void SharedOffset::take_moves(size_t count) {
  for (; count > 0; --count) {
    at_ += pending_.front();
    pending_in_all_ -= pending_.front();
    pending_.pop_front();
    ++taken_;
  }
}

// What is known to have been made has been seen. More may have been: since then, or by who is kept
// from telling so for as long as it likes (its thread waits for a processor). What stands where the
// next moves lead to has been moved. Those that were taken so are told of later.
void SharedOffset::notice_moves(const Seen& now) {
  if (now.made > taken_) take_moves(now.made - taken_);
  int64_t at = at_;
  for (size_t i = 0; i < pending_.size() && now.offset != at_; ++i) {
    at += pending_[i];
    if (at == now.offset) return take_moves(i + 1);
  }
}

// ---- reads and seeks ----

SharedOffset::Read SharedOffset::begin(int64_t offset, Seen now) {
  notice_moves(now);
  const bool goes_on =
      has_next_ && read_began_ == now.offset && offset == at_ && offset != now.offset;
  if (offset != now.offset && !goes_on) return {};
  if (!goes_on) read_began_ = now.offset;
  // A seek from where it was, which is to be moved, too.
  if (offset != at_) return {.is_at_offset = true, .sought = offset + pending_in_all_};
  return {.is_at_offset = true};
}

bool SharedOffset::end(int64_t offset, int64_t was_at, int64_t got, int64_t size) {
  at_ = offset + got;
  has_next_ = got == size;
  const int64_t by = was_at - offset - pending_in_all_;
  if (by == 0) return false;
  pending_.push_back(by);
  pending_in_all_ += by;
  moves_->add(by);
  return true;
}

std::optional<SharedOffset::Seek> SharedOffset::take_seek(Seen now, bool may_be_reading) {
  notice_moves(now);
  if (now.offset == at_ || (may_be_reading && now.offset == read_began_)) return std::nullopt;
  const Seek seek{at_ + pending_in_all_, now.offset + pending_in_all_};
  at_ = now.offset;
  return seek;
}

}  // namespace krg
