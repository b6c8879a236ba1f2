// SPDX-License-Identifier: GPL-2.0-or-later
#include "range_pin.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace krg {
namespace {

// What is under way to a range at once. More would only come earlier than it can be kept.
constexpr size_t kWindowBytes = 4u << 20, kWindowObjects = 1024;

}  // namespace

RangePin::RangePin(EventLoop& loop, Kddm& kddm, std::shared_ptr<SetUses> uses,
                   const Objects& objects, std::span<std::byte> bytes)
    : loop_(loop),
      kddm_(kddm),
      uses_(std::move(uses)),
      objects_(objects),
      bytes_(bytes),
      window_(std::clamp<size_t>(kWindowBytes / (bytes.size() / objects.count), 1, kWindowObjects)),
      states_(objects.count, State::kMissing),
      pinned_(objects.count) {}

void RangePin::take(Taken taken) {
  taken_ = std::move(taken);
  use_ = true;
  uses_->begin(objects_.set);
  go_on();
}

std::span<std::byte> RangePin::bytes_of(size_t index) const {
  const size_t each = bytes_.size() / objects_.count;
  return bytes_.subspan(index * each, each);
}

void RangePin::go_on() {
  if (goes_on_) return;  // the call that is under way sees what this one was told
  const auto alive = shared_from_this();
  goes_on_ = true;
  {
    const Kddm::Together together(kddm_);
    while (goes_well() && lowest_missing_ < objects_.count) {
      const size_t at = lowest_missing_;
      if (states_[at] == State::kPinned) {
        std::memcpy(bytes_of(at).data(), pinned_[at].data(), pinned_[at].size());
        ++lowest_missing_;
        continue;
      }
      const size_t window_end = std::min(objects_.count, at + window_);
      if (states_[at] == State::kMissing) {
        // Most of those that were let go of are here still.
        ask(at);
        if (states_[at] == State::kAskedFor && goes_well()) ask_up_to(window_end);
      } else if (asked_end_ < objects_.count && asked_end_ < at + window_ / 2 + 1) {
        ask_up_to(window_end);
      } else {
        break;
      }
    }
    goes_on_ = false;  // what is sent now may grant something at once
  }
  if (!goes_well()) return;
  if (lowest_missing_ == objects_.count) {
    if (auto taken = std::exchange(taken_, nullptr)) taken({});
  } else if (!higher_.empty() && !std::exchange(lets_go_, true)) {
    loop_.post([weak = weak_from_this()] {
      if (auto self = weak.lock()) self->let_go_of_higher();
    });
  }
}

void RangePin::ask_up_to(size_t end) {
  for (size_t i = lowest_missing_; i < end && goes_well(); ++i)
    if (states_[i] == State::kMissing) ask(i);
}

void RangePin::ask(size_t index) {
  asked_end_ = std::max(asked_end_, index + 1);
  states_[index] = State::kAskedFor;
  uses_->begin(objects_.set);
  auto done = [self = shared_from_this(), index](const Granted& bytes) {
    self->granted(index, bytes);
  };
  if (objects_.writing) {
    kddm_.grab(objects_.set, object(index), objects_.touch, std::move(done));
  } else {
    kddm_.get(objects_.set, object(index), objects_.touch, std::move(done));
  }
}

void RangePin::granted(size_t index, const Granted& bytes) {
  states_[index] = State::kMissing;
  if (goes_well() && bytes && !uses_->is_stopping(objects_.set)) {
    states_[index] = State::kPinned;
    pinned_[index] = *bytes;
    if (index > lowest_missing_) higher_.push_back(index);
    go_on();
    return uses_->end(objects_.set);
  }
  if (goes_well()) fail_soon(bytes ? errno_error("the set was destroyed", EIDRM) : bytes.error());
  if (bytes) return put_soon(loop_, kddm_, uses_, objects_.set, object(index));
  uses_->end(objects_.set);
}

void RangePin::let_go_of_higher() {
  lets_go_ = false;
  const Kddm::Together together(kddm_);
  // Those that it has reached since are kept. A put may grant something, and come back here.
  for (const size_t index : std::exchange(higher_, {})) {
    if (!use_ || index < lowest_missing_ || states_[index] != State::kPinned) continue;
    states_[index] = State::kMissing;
    kddm_.put(objects_.set, object(index));
  }
  if (goes_well()) go_on();
}

void RangePin::release(bool store) {
  if (!std::exchange(use_, false)) return;
  const auto alive = shared_from_this();
  const bool writes = store && objects_.writing && lowest_missing_ == objects_.count;
  {
    const Kddm::Together together(kddm_);
    for (size_t i = 0; i < asked_end_; ++i) {
      if (states_[i] != State::kPinned) continue;
      if (writes) std::memcpy(pinned_[i].data(), bytes_of(i).data(), pinned_[i].size());
      kddm_.put(objects_.set, object(i));
    }
  }
  uses_->end(objects_.set);
}

// Not at once: what it puts may be what a thousand others wait for, who would fail in turn, each
// inside of the one before.
void RangePin::fail_soon(const Error& error) {
  failed_ = true;
  loop_.post([weak = weak_from_this(), error] {
    if (auto self = weak.lock()) self->fail(error);
  });
}

void RangePin::fail(const Error& error) {
  if (!use_) return;
  const auto alive = shared_from_this();
  auto taken = std::exchange(taken_, nullptr);
  release(false);
  if (taken) taken(error);
}

}  // namespace krg
