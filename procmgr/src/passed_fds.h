// Descriptors that processes pass by unix sockets (SCM_RIGHTS, unix(7)) one end of which is used on
// another node: what comes is looked at piece by piece, so that descriptors stay with the byte that
// they were sent with. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/types.h>

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

struct ExportedFd;

// How they are taken to another node; Descriptors says.
struct FdPassing {
  // Errors: ENOTSUP: one of them cannot be had elsewhere.
  std::function<Result<std::string>(std::vector<UniqueFd>)> pack;
  // On the other node: for body `pid`; 0: for whoever reads a socket of that node.
  using Unpacked = std::function<void(Result<std::vector<UniqueFd>>)>;
  std::function<void(pid_t, std::string_view, Unpacked)> unpack;
  // What was packed has never got there.
  std::function<void(std::string_view)> cancel;
};

std::string encode_passed(const std::vector<ExportedFd>& fds);
// Errors: EBADMSG.
Result<std::vector<ExportedFd>> decode_passed(std::string_view bytes);

// What a connected socket has next: bytes without descriptors, or with those that came with the
// first of them; or a packet.
struct SocketPiece {
  ssize_t bytes = -1;  // as of recv(2), which `error` is of
  int error = 0;
  bool is_unfit = false;  // a packet that is larger than the room
  std::vector<UniqueFd> fds;
};
// Stays in the socket. Copies of the descriptors are ours.
SocketPiece peek_piece(int socket, std::span<char> room);
// All that a connected socket has, which stays there. An empty packet that was shown before is left
// out. Errors: of recvmsg(2); EMSGSIZE: a piece is too large, or has more descriptors than krgd.
struct WaitingPiece {
  std::string data;
  std::vector<UniqueFd> fds;
};
Result<std::vector<WaitingPiece>> peek_all_pieces(int socket);
// Whether a socket keeps the bounds of what is sent.
bool is_of_packets(int socket);
// Of a piece of no bytes: nothing more comes, rather than that it is an empty packet.
bool is_end(int socket);
// Off the socket.
SocketPiece take_piece(int socket, std::span<char> room);
// The same of a packet, which is the one that comes next even where others read the socket, too.
SocketPiece take_packet(int socket, std::span<char> room);
// The same of a socket on which nobody passes descriptors to be kept, without looking first.
SocketPiece take_plain_piece(int socket, std::span<char> room);
// What goes along with the bytes of a piece; empty: nothing. Errors: EMSGSIZE, ENOTSUP: the piece
// cannot be had elsewhere.
Result<std::string> pack_passed(const FdPassing& passing, SocketPiece piece);
// As send(2), without waiting nor SIGPIPE; `fds` go with the first byte.
ssize_t send_piece(int socket, std::string_view data, std::span<const UniqueFd> fds);

}  // namespace krg
