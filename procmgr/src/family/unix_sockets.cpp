// SPDX-License-Identifier: GPL-2.0-or-later
#include "family/unix_sockets.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "krg/procmgr/process_family.h"
#include "krg/runtime/unique_fd.h"

namespace krg {
namespace {

template <class T>
T value_of(const rtattr* attribute) {
  T value{};
  if (RTA_PAYLOAD(attribute) >= sizeof value) memcpy(&value, RTA_DATA(attribute), sizeof value);
  return value;
}

UnixSocketFacts facts_of(const nlmsghdr* answer) {
  UnixSocketFacts facts;
  const auto* socket = static_cast<const unix_diag_msg*>(NLMSG_DATA(answer));
  auto left = static_cast<int>(answer->nlmsg_len - NLMSG_LENGTH(sizeof *socket));
  for (auto* attribute = reinterpret_cast<const rtattr*>(socket + 1); RTA_OK(attribute, left);
       attribute = RTA_NEXT(attribute, left)) {
    if (attribute->rta_type == UNIX_DIAG_PEER) facts.peer = value_of<uint32_t>(attribute);
    // RCV_SHUTDOWN and SEND_SHUTDOWN of the kernel are these bits.
    if (attribute->rta_type == UNIX_DIAG_SHUTDOWN) facts.ended = value_of<uint8_t>(attribute);
    if (attribute->rta_type == UNIX_DIAG_RQLEN) {
      const auto lengths = value_of<unix_diag_rqlen>(attribute);
      facts.waiting = lengths.udiag_rqueue;
      facts.backlog = static_cast<int32_t>(lengths.udiag_wqueue);
    }
  }
  return facts;
}

}  // namespace

Result<UnixSocketFacts> unix_socket_facts(ino_t socket) {
  static_assert(FamilySocket::kEndedReading == 1 && FamilySocket::kEndedWriting == 2);
  UniqueFd diagnosis(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  if (!diagnosis) return errno_error("asking for unix sockets", ENOTSUP);
  struct {
    nlmsghdr header;
    unix_diag_req request;
  } ask{};
  ask.header.nlmsg_len = sizeof ask;
  ask.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  ask.header.nlmsg_flags = NLM_F_REQUEST;
  ask.request.sdiag_family = AF_UNIX;
  ask.request.udiag_states = ~0U;
  ask.request.udiag_ino = static_cast<uint32_t>(socket);
  ask.request.udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN;
  ask.request.udiag_cookie[0] = ask.request.udiag_cookie[1] = ~0U;
  if (send(diagnosis.get(), &ask, sizeof ask, 0) < 0)
    return errno_error("asking for unix sockets", ENOTSUP);
  alignas(nlmsghdr) std::array<char, 4096> answer;
  const ssize_t got = recv(diagnosis.get(), answer.data(), answer.size(), 0);
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer.data());
  if (got < 0 || !NLMSG_OK(header, static_cast<size_t>(got)))
    return errno_error("asking for unix sockets", EPROTO);
  if (header->nlmsg_type == NLMSG_ERROR) {
    const int number = -static_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
    // Where no handler is registered for the family, sock_diag(7) says ENOENT, too.
    return errno_error("a unix socket of another network namespace, or no CONFIG_UNIX_DIAG",
                       number);
  }
  return facts_of(header);
}

}  // namespace krg
