// SPDX-License-Identifier: GPL-2.0-or-later
#include "passed_fds.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "krg/procmgr/descriptors.h"
#include "krg/runtime/unix_socket.h"
#include "packed_bytes.h"

namespace krg {
namespace {

// The most that one message passes (SCM_MAX_FD of the kernel); other control messages besides.
constexpr size_t kMostPassed = 253;
constexpr size_t kControlBytes = CMSG_SPACE(kMostPassed * sizeof(int)) + 512;

SocketPiece receive(int socket, std::span<char> room, int flags) {
  alignas(cmsghdr) char control[kControlBytes];
  iovec part{room.data(), room.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  SocketPiece piece;
  piece.bytes = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | flags);
  if (piece.bytes < 0) {
    piece.error = errno;
    return piece;
  }
  piece.is_unfit = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
  piece.fds = received_fds(message);
  return piece;
}

bool is_stream(int socket) {
  int type = 0;
  socklen_t size = sizeof type;
  return getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

// What was sent before the last one of the writes that `room` shows: asking for less would not tell
// (the kernel looks for descriptors behind what it shows), but a last byte for which there is no
// memory does: of the write that it belongs to nothing is shown then.
ssize_t bytes_before_last(int socket, std::span<char> room) {
  iovec parts[] = {{room.data(), room.size() - 1}, {nullptr, 1}};
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = std::size(parts);
  const ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_PEEK | MSG_CMSG_CLOEXEC);
  return std::max<ssize_t>(got, 0);
}

}  // namespace

std::string encode_passed(const std::vector<ExportedFd>& fds) {
  PackedWriter out;
  for (const ExportedFd& fd : fds) out.put_string(fd.recipe);
  return out.take();
}

Result<std::vector<ExportedFd>> decode_passed(std::string_view bytes) {
  PackedReader in(bytes);
  std::vector<ExportedFd> fds;
  while (!in.at_end()) fds.push_back({static_cast<int>(fds.size()), std::string(in.get_string())});
  if (!in.ok()) return errno_error("descriptors that were passed", EBADMSG);
  return fds;
}

// A stream shows bytes that were sent before together with those that descriptors came with.
SocketPiece peek_piece(int socket, std::span<char> room) {
  SocketPiece piece = receive(socket, room, MSG_PEEK);
  if (piece.fds.empty() || !is_stream(socket)) return piece;
  const ssize_t before = bytes_before_last(socket, room.first(static_cast<size_t>(piece.bytes)));
  if (before == 0) return piece;
  piece.bytes = before;
  piece.fds.clear();
  return piece;
}

SocketPiece take_piece(int socket, std::span<char> room) {
  SocketPiece piece = peek_piece(socket, room);
  if (piece.bytes <= 0) return piece;
  SocketPiece taken = receive(socket, room.first(static_cast<size_t>(piece.bytes)), 0);
  taken.is_unfit |= piece.is_unfit;
  return taken;
}

SocketPiece take_plain_piece(int socket, std::span<char> room) {
  SocketPiece piece = receive(socket, room, 0);
  piece.fds.clear();
  return piece;
}

Result<std::string> pack_passed(const FdPassing& passing, SocketPiece piece) {
  if (piece.is_unfit) return errno_error("a packet", EMSGSIZE);
  return piece.fds.empty() ? std::string() : passing.pack(std::move(piece.fds));
}

ssize_t send_piece(int socket, std::string_view data, std::span<const UniqueFd> fds) {
  if (fds.empty()) return send(socket, data.data(), data.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  alignas(cmsghdr) char control[kControlBytes] = {};
  iovec part{const_cast<char*>(data.data()), data.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  const size_t count = std::min(fds.size(), kMostPassed);
  message.msg_controllen = CMSG_SPACE(count * sizeof(int));
  cmsghdr* passed = CMSG_FIRSTHDR(&message);
  passed->cmsg_level = SOL_SOCKET;
  passed->cmsg_type = SCM_RIGHTS;
  passed->cmsg_len = CMSG_LEN(count * sizeof(int));
  for (size_t i = 0; i < count; ++i) {
    const int fd = fds[i].get();
    std::memcpy(CMSG_DATA(passed) + i * sizeof fd, &fd, sizeof fd);
  }
  return sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace krg
