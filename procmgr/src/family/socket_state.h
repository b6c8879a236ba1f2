// SocketState: what a connected, listening or other socket is, and what is in flight to and from
// it, taken while nobody uses it; nothing of it is changed.
//
// What a TCP socket has sent and its peer has not got is to be had where krgd has CAP_NET_ADMIN in
// the socket's network namespace (TCP_REPAIR, tcp(7)); elsewhere a socket is refused (EAGAIN) until
// all has arrived.
//
// Threads: any. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <vector>

#include "krg/procmgr/process_family.h"
#include "krg/runtime/result.h"

namespace krg {

// What tells which sockets belong together.
struct SocketIdentity {
  uint64_t inode = 0, peer_inode = 0;  // of a unix socket
  uint32_t has_sequence = 0;           // TCP: the next two are known
  uint32_t written = 0, received = 0;  // sequence numbers, without the ends of the directions
  uint32_t queued = 0;                 // bytes of `unsent` that count in `written`
};

// What a relay between nodes has of a socket's input and output (Descriptors::RelayedSocket).
struct SocketRelay {
  uint64_t skip = 0;   // as much of the input has been read
  std::string came;    // before the input
  std::string output;  // behind what the socket has taken
};

struct SocketState {
  FamilySocket socket;
  SocketIdentity identity;

  // `flags`: F_GETFL. Errors: ENOTSUP with what cannot be kept; EAGAIN: not at this moment.
  static Result<SocketState> take(int fd, const SocketRelay& relay);
};

// What can be read from it. Packets, where it is no stream, with their lengths before them. Errors:
// ENOTSUP: descriptors are in flight; of recvmsg(2).
Result<std::string> peek_socket(int fd, int domain, int type);

// TCP: bytes that its peer has not acknowledged.
int unacknowledged(int fd);

// Finds the ends that belong together among sockets of all nodes, and what is lost. Errors: EAGAIN:
// what has been sent is not to be had at this moment.
Status pair_sockets(std::vector<FamilySocket>& sockets,
                    const std::vector<SocketIdentity>& identities);

// "TCP 127.0.0.1:80 to 127.0.0.1:3456", for people.
std::string describe_socket_for_people(const FamilySocket& socket);

// "198.18.0.1:80", "/run/name", for people.
std::string describe_address(std::string_view address);

}  // namespace krg
