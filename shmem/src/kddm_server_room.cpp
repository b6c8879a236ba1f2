// What the server does while there is no memory for bytes that have come.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <utility>

#include "kddm_server.h"
#include "krg/runtime/check.h"
#include "krg/runtime/log.h"

namespace krg::kddm {

// How often it is looked whether there is memory, and for how long: the kernel takes it from the
// programs, all of which may have to go first.
constexpr std::chrono::milliseconds kLook{1};
constexpr std::chrono::seconds kLongestWait{60};
constexpr std::chrono::seconds kToldAgain{10};

void Server::in_turn(std::function<void()> event) {
  if (waiting_.empty()) return event();
  waiting_.push_back({.event = std::move(event)});
}

void Server::wait_for_turn(NodeId from, const Wire& wire, std::string_view payload) {
  if (waiting_.empty()) {
    const auto now = std::chrono::steady_clock::now();
    if (now - waiting_since_ > kToldAgain)
      log_warn("kddm", "no memory for what node {} has sent: it waits", from.value);
    waiting_since_ = now;
  }
  waiting_.push_back({.message = {from, wire, std::string(payload)}});
  look_for_memory();
}

void Server::look_for_memory() {
  if (waiting_timer_ || receives_waiting_) return;
  check(std::chrono::steady_clock::now() - waiting_since_ < kLongestWait,
        "there is memory for pages");
  waiting_timer_ = messenger.loop().after(kLook, [weak = weak_from_this()] {
    auto self = weak.lock();
    if (!self) return;
    self->waiting_timer_.reset();
    self->receive_waiting();
  });
}

// What is received may lead here again.
void Server::receive_waiting() {
  if (receives_waiting_) return;
  receives_waiting_ = true;
  const Outbox::Scope scope(outbox);
  bool is_room = true;
  while (is_room && !waiting_.empty()) {
    InTurn next = std::move(waiting_.front());
    waiting_.pop_front();
    if (next.event) {
      next.event();
    } else {
      const Held& message = next.message;
      is_room = try_receive(message.from, message.wire, message.payload);
      if (is_room) waiting_since_ = std::chrono::steady_clock::now();
    }
    if (!is_room) waiting_.push_front(std::move(next));
  }
  receives_waiting_ = false;
  if (!waiting_.empty()) look_for_memory();
}

}  // namespace krg::kddm
