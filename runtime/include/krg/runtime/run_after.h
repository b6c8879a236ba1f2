// run_after(): a timer that nobody holds. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <utility>

#include "krg/runtime/event_loop.h"

namespace krg {

// Calls `work` once, `delay` from now. REQUIRES: what it uses is kept by it, or outlives the loop.
inline void run_after(EventLoop& loop, std::chrono::microseconds delay,
                      std::function<void()> work) {
  auto timer = std::make_shared<EventLoop::Timer>();
  *timer = loop.after(delay, [timer, work = std::move(work)] {
    auto kept = std::move(*timer);  // this very callback
    work();
  });
}

}  // namespace krg
