// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/fill_sockets.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace krg {
namespace {

constexpr int kPatienceMs = 1000;
constexpr int kMuchBuffer = 64 << 20;

// More than the kernel gives of itself: as much as it has to be, or as krgd may ask for.
void enlarge(int fd, int forced, int name) {
  const int bytes = kMuchBuffer;
  if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof bytes) != 0)
    setsockopt(fd, SOL_SOCKET, name, &bytes, sizeof bytes);
}

// Sizes of buffers, which are as they were in the end: the kernel takes half of what it tells.
class BufferSizes {
 public:
  BufferSizes(int fd, int forced, int name) : fd_(fd), name_(name) {
    socklen_t bytes = sizeof before_, lock_bytes = sizeof locks_;
    getsockopt(fd, SOL_SOCKET, name, &before_, &bytes);
    getsockopt(fd, SOL_SOCKET, SO_BUF_LOCK, &locks_, &lock_bytes);
    enlarge(fd, forced, name);
  }
  ~BufferSizes() {
    const int half = before_ / 2;
    setsockopt(fd_, SOL_SOCKET, name_, &half, sizeof half);
    setsockopt(fd_, SOL_SOCKET, SO_BUF_LOCK, &locks_, sizeof locks_);
  }
  BufferSizes(const BufferSizes&) = delete;
  BufferSizes& operator=(const BufferSizes&) = delete;

 private:
  int fd_, name_, before_ = 0, locks_ = 0;
};

Status no_room(size_t left) {
  return errno_error(fmt::format("{} bytes in flight that a socket does not take", left), ENOBUFS);
}

Status send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t put = send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno != EAGAIN) return errno_error("what was in flight in a socket");
    pollfd room{fd, POLLOUT, 0};
    if (put < 0 && poll(&room, 1, kPatienceMs) <= 0) return no_room(bytes.size());
    if (put > 0) bytes.remove_prefix(static_cast<size_t>(put));
  }
  return {};
}

Status send_packets(int fd, std::string_view packets) {
  uint32_t bytes;
  while (packets.size() >= sizeof bytes) {
    memcpy(&bytes, packets.data(), sizeof bytes);
    packets.remove_prefix(sizeof bytes);
    const auto packet = packets.substr(0, bytes);
    if (send(fd, packet.data(), packet.size(), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
      return errno == EAGAIN ? no_room(packets.size()) : errno_error("a packet in flight");
    packets.remove_prefix(packet.size());
  }
  return {};
}

Status fill(int reader, int writer, const FamilySocket& socket, std::string_view input) {
  if (socket.type != SOCK_STREAM) {
    BufferSizes out(writer, SO_SNDBUFFORCE, SO_SNDBUF);
    return send_packets(writer, input);
  }
  constexpr size_t kAlwaysFits = 32 * 1024;
  if (input.size() <= kAlwaysFits) return send_all(writer, input);
  if (socket.domain == AF_UNIX) {
    BufferSizes out(writer, SO_SNDBUFFORCE, SO_SNDBUF);
    return send_all(writer, input);
  }
  // What TCP has once it keeps; its own choice of sizes goes on.
  BufferSizes in(reader, SO_RCVBUFFORCE, SO_RCVBUF), out(writer, SO_SNDBUFFORCE, SO_SNDBUF);
  return send_all(writer, input);
}

}  // namespace

Status fill_sockets(const ProcessFamily& family,
                    const std::function<Result<UniqueFd>(uint32_t, bool)>& end_of) {
  const auto& sockets = family.sockets;
  const auto is_wanted = [&](uint32_t i) {
    return sockets[i].state == FamilySocket::State::kConnected &&
           family.file_of_socket(i) != FamilySocket::kNone;
  };
  for (uint32_t i = 0; i < sockets.size(); ++i) {
    const std::string input = is_wanted(i) ? family.input_of_socket(i) : std::string();
    if (input.empty()) continue;
    const bool is_alone = sockets[i].peer == FamilySocket::kNone;
    auto reader = end_of(i, false);
    auto writer = end_of(is_alone ? i : sockets[i].peer, is_alone);
    if (!reader) return reader.error();
    if (!writer) return writer.error();
    if (auto filled = fill(reader->get(), writer->get(), sockets[i], input); !filled) return filled;
  }
  for (uint32_t i = 0; i < sockets.size(); ++i) {
    if (!is_wanted(i) || sockets[i].ended == 0) continue;
    auto end = end_of(i, false);
    if (!end) return end.error();
    if (sockets[i].ended & FamilySocket::kEndedWriting) shutdown(end->get(), SHUT_WR);
    if (sockets[i].domain == AF_UNIX && (sockets[i].ended & FamilySocket::kEndedReading))
      shutdown(end->get(), SHUT_RD);
  }
  return {};
}

}  // namespace krg
