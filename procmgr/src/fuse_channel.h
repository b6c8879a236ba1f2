// FuseChannel: one open /dev/fuse: cuts what the kernel sends into requests and writes replies and
// notifications. It knows the message framing, not what requests mean (session_fs.cpp does).
// Owner: SessionFs. Threads: the loop's thread. Source: fuse(4), linux/fuse.h, protocol 7.31 or
// later.
//
// Invariants: a request's body is valid during the handler's call only; at most one reply per
// request. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <linux/fuse.h>

#include <functional>
#include <string>
#include <string_view>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

// The largest read or write that one request carries: 256 pages, the kernel's own default limit.
inline constexpr size_t kMaxFuseIoBytes = 1u << 20;

class FuseChannel {
 public:
  using Handler = std::function<void(const fuse_in_header&, std::string_view body)>;

  FuseChannel(EventLoop& loop, Handler handler) : loop_(loop), handler_(std::move(handler)) {}
  FuseChannel(const FuseChannel&) = delete;
  FuseChannel& operator=(const FuseChannel&) = delete;

  // Starts serving `fuse`; every request of a burst is handled in one wake-up of the loop.
  Status start(UniqueFd fuse);
  bool is_open() const { return static_cast<bool>(fuse_); }

  // Answers request `unique`: `number` is 0 or an errno value.
  void reply(uint64_t unique, int number, std::string_view body = {});
  template <class Body>
  void reply_struct(uint64_t unique, const Body& body) {
    reply(unique, 0, {reinterpret_cast<const char*>(&body), sizeof body});
  }
  // Wakes those who wait in poll for the open file that the kernel calls `kernel_handle`.
  void notify_poll(uint64_t kernel_handle);

 private:
  void handle_burst();
  void send(uint64_t unique, int32_t code, std::string_view body);

  EventLoop& loop_;
  Handler handler_;
  UniqueFd fuse_;
  EventLoop::Watch watch_;
  std::string buffer_;
};

}  // namespace krg
