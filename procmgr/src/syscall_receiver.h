// SyscallReceiver: takes the stopped calls of all listeners up, in the loop when it waits for
// events, else in a thread of its own, however busy the loop is. Until a call has been taken up any
// signal with a handler ends it, with EINTR where the handler restarts nothing, also calls that
// know no EINTR natively (fork); afterwards a fatal one only. The thread alone would do, but each
// call would cost two more switches between threads, and between processors where its priority is
// real-time: 45 µs.
//
// Threads: the loop's thread, in which the calls are delivered, in the order in which they were
// taken up.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/seccomp.h>

#include <functional>
#include <memory>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class SyscallReceiver {
 public:
  // The listener that a call came by, which stays open while it is kept, and the call.
  using Deliver =
      std::function<void(const std::shared_ptr<const UniqueFd>& listener, const seccomp_notif&)>;

  // `first`: the thread at real-time priority, or at least in short turns, as far as that is
  // allowed.
  SyscallReceiver(EventLoop& loop, Deliver deliver, bool first);
  ~SyscallReceiver();
  SyscallReceiver(const SyscallReceiver&) = delete;
  SyscallReceiver& operator=(const SyscallReceiver&) = delete;

  // Receives from a listener until the last process under its filter has gone.
  Status add(UniqueFd listener);
  // How many are received from.
  size_t listener_count() const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace krg
