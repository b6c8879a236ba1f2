// SPDX-License-Identifier: GPL-2.0-or-later
#include "passed_fds.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "krg/procmgr/descriptors.h"
#include "krg/runtime/unix_socket.h"
#include "packed_bytes.h"
#include "socket_messages.h"
#include "socket_option.h"

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
  return socket_option(socket, SOL_SOCKET, SO_TYPE) == SOCK_STREAM;
}

// Where what is looked at begins (SO_PEEK_OFF, socket(7)); as before at the end.
class PeekOffset {
 public:
  explicit PeekOffset(int socket)
      : socket_(socket), before_(socket_option(socket, SOL_SOCKET, SO_PEEK_OFF)) {}
  ~PeekOffset() { set(before_); }
  PeekOffset(const PeekOffset&) = delete;
  PeekOffset& operator=(const PeekOffset&) = delete;
  bool set(int offset) const {
    return setsockopt(socket_, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset) == 0;
  }

 private:
  int socket_, before_;
};

// Of TCP, all at once: it has no offset to look from everywhere, and no descriptors.
Result<std::vector<WaitingPiece>> peek_plain_bytes(int socket) {
  int bytes = 0;
  if (ioctl(socket, FIONREAD, &bytes) != 0) return errno_error("FIONREAD of a socket");
  if (bytes <= 0) return std::vector<WaitingPiece>();
  std::string data(static_cast<size_t>(bytes), 0);
  const ssize_t got = recv(socket, data.data(), data.size(), MSG_PEEK | MSG_DONTWAIT);
  if (got < 0) return errno_error("what a socket has");
  if (got != bytes) return errno_error("what a socket has", EMSGSIZE);
  std::vector<WaitingPiece> pieces;
  pieces.push_back({std::move(data), {}});
  return pieces;
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

bool is_of_packets(int socket) {
  return !is_stream(socket);
}

bool is_end(int socket) {
  pollfd state{socket, POLLRDHUP, 0};
  return is_stream(socket) || (poll(&state, 1, 0) > 0 && (state.revents & POLLRDHUP));
}

Result<std::vector<WaitingPiece>> peek_all_pieces(int socket) {
  if (socket_option(socket, SOL_SOCKET, SO_DOMAIN) != AF_UNIX) return peek_plain_bytes(socket);
  const PeekOffset begin(socket);
  std::vector<WaitingPiece> all;
  std::string room(kMaxSocketPieceBytes, 0);
  const bool of_packets = is_of_packets(socket);
  for (int offset = 0;;) {
    if (!begin.set(offset)) return errno_error("SO_PEEK_OFF of a socket");
    SocketPiece piece = receive(socket, room, MSG_PEEK);
    if (piece.bytes < 0 && piece.error != EAGAIN)
      return errno_error("what a socket has", piece.error);
    if (piece.bytes < 0 || (piece.bytes == 0 && is_end(socket))) return all;
    if (piece.is_unfit) return errno_error("what a socket has", EMSGSIZE);
    if (!piece.fds.empty() && !of_packets) {
      begin.set(offset);
      const auto shown = std::span(room).first(static_cast<size_t>(piece.bytes));
      if (const ssize_t before = bytes_before_last(socket, shown); before > 0) {
        piece.bytes = before;
        piece.fds.clear();
      }
    }
    all.push_back({room.substr(0, static_cast<size_t>(piece.bytes)), std::move(piece.fds)});
    offset += static_cast<int>(piece.bytes);
  }
}

SocketPiece take_piece(int socket, std::span<char> room) {
  SocketPiece piece = peek_piece(socket, room);
  if (piece.bytes < 0 || (piece.bytes == 0 && is_end(socket))) return piece;
  SocketPiece taken = receive(socket, room.first(static_cast<size_t>(piece.bytes)), 0);
  taken.is_unfit |= piece.is_unfit;
  return taken;
}

SocketPiece take_packet(int socket, std::span<char> room) {
  return receive(socket, room, 0);
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
