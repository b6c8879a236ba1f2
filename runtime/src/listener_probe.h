// Asks a peer's kernel whether the peer's endpoint is still listened for. libfabric's rxm tries for
// ever to connect anew to a process that was killed, and says EAGAIN meanwhile.
// Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>
#include <string>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// One question, which ends with it. `refused` is called from the loop when the kernel of the peer's
// machine says that nothing listens there (any more); never when a connection can be made, when
// there is no answer, and for providers whose addresses are not IPv4.
class ListenerProbe {
 public:
  ListenerProbe() = default;
  // `address`: the peer's, as fi_getname(3) gave it.
  ListenerProbe(EventLoop& loop, const std::string& address, std::function<void()> refused);

 private:
  UniqueFd connection_;
  EventLoop::Watch watch_;
};

}  // namespace krg
