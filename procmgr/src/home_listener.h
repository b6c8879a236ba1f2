// HomeListener: a listening socket that stays on this node while processes elsewhere accept by it.
// Connections are accepted here and offered there (listener_relays.h), one at a time; each is a
// HomeSocket. Where several may accept by it, on other nodes or this one, a connection stays in the
// socket's own queue until one of other nodes waits for it: they are asked in turn.
// A connection that was offered and is not accepted is kept until another takes it; where nobody
// elsewhere does, it goes into the socket's own queue: it connects to the socket by a relay of this
// node.
// Owner: RemoteHome. Threads: the loop's thread.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <memory>
#include <string>

#include "home_file.h"
#include "listener_messages.h"

namespace krg {

class RemoteHome;
class SocketRelays;

class HomeListener : public RelayedHomeFile {
 public:
  HomeListener(NodeContext& node, RemoteHome& home, SocketRelays& sockets, UniqueFd real);
  ~HomeListener() override;

  // Its entry in the home, which it keeps while connections wait here.
  void set_id(HomeId id);
  // Others accept by it, too: processes of this node, or of several.
  void share();
  // From now on connections go to `place`, and no more to `left` (number 0: none), whose process
  // has moved.
  void attach(const ListenerPlace& place, const ListenerPlace& left);
  void detach(const ListenerPlace& place);
  // Its process is back from `left`, and accepts by itself.
  void come_home(pid_t process, const ListenerPlace& left);
  // A connection that was offered and is not accepted; `came` is what came by it so far.
  void take_back(HomeId connection, std::string_view came);
  // A process of this node accepts by this very socket for now, of what listens elsewhere: nothing
  // is accepted here. Errors: of fcntl(2); EBUSY: one does already.
  Result<UniqueFd> lend();
  void end_loan();
  // A connection that the process had in its queue; `came` as below.
  void take_in(UniqueFd accepted, std::string came);
  // Connections are on their way to the process.
  bool has_waiting() const;
  void forget_node(NodeId node) override;

 private:
  struct State;
  std::shared_ptr<State> state_;  // answers that come late hold it weakly
};

}  // namespace krg
