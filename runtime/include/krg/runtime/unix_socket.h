// Unix sockets of type SOCK_SEQPACKET: packets with descriptors, for the control channel between
// krgd and its tools. Threads: none of its own; each function is one system call or a short loop of
// them. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <sys/socket.h>

#include <span>
#include <string>
#include <vector>

#include "krg/runtime/result.h"
#include "krg/runtime/unique_fd.h"

namespace krg {

inline constexpr size_t kMaxPacketBytes = 192 * 1024;
inline constexpr size_t kMaxPacketFds = 64;

// One packet: bytes and the descriptors that came with them (close-on-exec).
struct Packet {
  std::string bytes;
  std::vector<UniqueFd> fds;
  bool end_of_stream = false;  // the peer closed; bytes is empty
};

// A listening socket at `path` (removed first when stale), mode `mode`. Errors: path too long (>
// 107 bytes), bind.
Result<UniqueFd> listen_seqpacket(const std::string& path, mode_t mode);
// Connects to `path`. Errors: ENOENT or ECONNREFUSED when nobody listens.
Result<UniqueFd> connect_seqpacket(const std::string& path);
Result<UniqueFd> accept_connection(int listener);
struct FdPair {
  UniqueFd first, second;
};
Result<FdPair> seqpacket_pair();

// Sends one packet with up to kMaxPacketFds descriptors (they stay the caller's). Errors: EAGAIN on
// a full non-blocking socket, EPIPE when the peer is gone (never SIGPIPE).
Status send_packet(int socket, std::string_view bytes, std::span<const int> fds = {});
// Receives one packet. Errors: EAGAIN when the socket is non-blocking and empty.
Result<Packet> receive_packet(int socket);
// The descriptors that recvmsg(2) has put into `message` (SCM_RIGHTS), which are the caller's now.
std::vector<UniqueFd> received_fds(msghdr& message);
// The peer's credentials when it connected; its pid is as this process's PID namespace sees it (0:
// outside).
Result<ucred> peer_credentials(int socket);

}  // namespace krg
