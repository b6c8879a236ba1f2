// SPDX-License-Identifier: GPL-2.0-or-later
#include "fuse_channel.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/uio.h>

#include "krg/runtime/log.h"

namespace krg {
namespace {

// Requests handled before the loop gets its turn again.
constexpr int kMaxBurst = 256;

}  // namespace

Status FuseChannel::start(UniqueFd fuse) {
  const int flags = fcntl(fuse.get(), F_GETFL);
  if (flags < 0 || fcntl(fuse.get(), F_SETFL, flags | O_NONBLOCK) != 0)
    return errno_error("fcntl of /dev/fuse");
  auto watch = loop_.watch(fuse.get(), EPOLLIN, [this](uint32_t) { handle_burst(); });
  if (!watch) return watch.error();
  watch_ = std::move(*watch);
  fuse_ = std::move(fuse);
  // The kernel refuses reads into less than max_write plus a header.
  buffer_.resize(kMaxFuseIoBytes + 4096);
  return {};
}

void FuseChannel::handle_burst() {
  for (int handled = 0; handled < kMaxBurst && fuse_; ++handled) {
    const ssize_t got = ::read(fuse_.get(), buffer_.data(), buffer_.size());
    if (got < 0) {
      if (errno == EAGAIN) return;
      if (errno == EINTR || errno == ENOENT) continue;  // ENOENT: the caller went away meanwhile
      if (errno != ENODEV) log_error("krgfs", "read of /dev/fuse: {}", errno);
      watch_.reset();  // unmounted or aborted
      fuse_.reset();
      return;
    }
    fuse_in_header header;
    if (static_cast<size_t>(got) < sizeof header) continue;
    std::memcpy(&header, buffer_.data(), sizeof header);
    handler_(header, std::string_view(buffer_).substr(sizeof header, got - sizeof header));
  }
}

void FuseChannel::reply(uint64_t unique, int number, std::string_view body) {
  send(unique, -number, number == 0 ? body : std::string_view{});
}

void FuseChannel::notify_poll(uint64_t kernel_handle) {
  fuse_notify_poll_wakeup_out wakeup{kernel_handle};
  send(0, FUSE_NOTIFY_POLL, {reinterpret_cast<const char*>(&wakeup), sizeof wakeup});
}

void FuseChannel::send(uint64_t unique, int32_t code, std::string_view body) {
  if (!fuse_) return;
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof header + body.size());
  header.error = code;
  header.unique = unique;
  const iovec parts[2] = {{&header, sizeof header}, {const_cast<char*>(body.data()), body.size()}};
  // ENOENT: the request was aborted, or nobody polls any more; neither is an error of ours.
  if (writev(fuse_.get(), parts, body.empty() ? 1 : 2) < 0 && errno != ENOENT)
    log_debug("krgfs", "reply {} ({} bytes): {}", unique, body.size(), errno);
}

}  // namespace krg
