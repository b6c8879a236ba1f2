// SocketCloses: tells when TCP sockets of this network namespace that may have listened have gone.
// Threads: the loop's thread. Source: sock_diag(7). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <functional>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

class SocketCloses {
 public:
  // `closed` may destroy this. Where the kernel tells nothing it is never called.
  SocketCloses(EventLoop& loop, std::function<void()> closed);

 private:
  void on_events();

  std::function<void()> closed_;
  UniqueFd socket_;
  EventLoop::Watch watch_;
};

}  // namespace krg
