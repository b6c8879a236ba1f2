// HomeSocket: a connected socket that stays on this node while a process elsewhere uses it. Input
// is looked at (MSG_PEEK) and sent; it is taken off the socket only when the body has consumed it,
// so that what a body leaves unread is there for whoever reads next.
// Owner: RemoteHome. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>

#include "carried_socket.h"
#include "home_file.h"
#include "passed_fds.h"
#include "socket_messages.h"
#include "socket_turns.h"

namespace krg {

class HomeSocket : public RelayedHomeFile {
 public:
  // `came`: what was taken off the socket already, and nobody has had.
  HomeSocket(NodeContext& node, FdPassing& passing, UniqueFd real, std::string came = {});
  ~HomeSocket() override;

  // Other processes, of this node or elsewhere, may read the socket, too: from now on each piece
  // goes to somebody who waits for it.
  void share(SocketTurns& turns);
  // A relay has had what came by it.
  bool has_been_attached() const;
  void attach(NodeId body_node, const SocketAttach& message, Messenger::Reply reply);
  // The body is moving; its relay has all that was sent.
  void pause() const;
  void leave(NodeId body_node, uint64_t relay);
  // The body comes to this node while its relay is paused, having read all of what was sent there
  // but what is carried: whether it may have the socket itself.
  bool can_be_native(const CarriedSocket& carried) const;
  // Takes what it has read off the socket.
  void become_native(const CarriedSocket& carried) const;
  // Takes what the body wrote, and passed; answered when the socket has all of it.
  void take(const SocketToHome& message, std::string_view payload, Messenger::Reply reply);
  void forget_node(NodeId node) override;

  // What a checkpoint has to know: bytes that have been taken off, what comes before the rest, and
  // what the socket has yet to take (packets with their lengths before them).
  uint64_t consumed() const;
  const std::string& came() const;
  std::string unwritten() const;

 private:
  struct State;
  std::shared_ptr<State> state_;  // answers that come late hold it weakly
};

}  // namespace krg
