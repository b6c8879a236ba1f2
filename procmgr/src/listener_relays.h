// ListenerRelays: listening sockets of this node that stand for ones of other nodes (their homes,
// home_listener.h). What connects there is connected to the one here and joined to it by a
// SocketRelay, so that the process accepts, polls and asks natively. Of a socket that processes of
// several nodes accept by, one connection at a time comes, when a process here waits for it.
//
// Owner: Descriptors. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "alive.h"
#include "krg/runtime/unique_fd.h"
#include "listener_shape.h"
#include "remote_home.h"
#include "socket_closes.h"
#include "socket_relays.h"
#include "socket_users.h"

namespace krg {

class HomeListener;

class ListenerRelays {
 public:
  ListenerRelays(NodeContext& node, RemoteHome& home, SocketRelays& sockets);
  ListenerRelays(const ListenerRelays&) = delete;
  ListenerRelays& operator=(const ListenerRelays&) = delete;

  // The home of a socket of this node that goes elsewhere: one for all who have the socket.
  // `is_shared`: others accept by it here. `guard`: what the export is settled with.
  HomeId keep(UniqueFd socket, bool is_shared, HomeId& guard);
  // Where a socket comes from, of which `left` is what its process, which alone had it, had on
  // another node (number 0: the real one, or others have it, too).
  struct Origin {
    NodeId home;
    HomeId id;
    NodeId exporter;
    ListenerPlace left;
    bool is_shared = false;
  };
  // The process's socket. Takes over one reference at the home, which the caller has asked for.
  Result<UniqueFd> open(pid_t body, const Origin& from, const ListenerShape& shape, int flags);
  // What krgd of `home` accepts in its place is connected to a process's own socket; the number
  // that it is to be offered by. Given up when the socket is closed, or by drop().
  uint64_t add_own(pid_t process, NodeId home, ino_t inode, const ListenerShape& shape);
  void set_home(uint64_t number, HomeId id);
  void drop(uint64_t number);
  // What krgd listens by here for processes of `home`, at `place`: one of them that comes here with
  // its socket gets this one, whose address is the same.
  void add_lendable(NodeId home, const ListenerShape& place, HomeId id);
  // Whether such a socket has been added.
  bool is_own(ino_t inode) const;
  // Back at its home: what waited there to be accepted elsewhere connects to it.
  void come_home(pid_t body, const Origin& from);

  struct Source {
    NodeId home;
    HomeId id;
    uint64_t number = 0;
  };
  // What a socket of this node stands for.
  std::optional<Source> source_of(ino_t inode) const;
  // Its process stands still and goes elsewhere: what waits in `socket` to be accepted goes back.
  void pause(uint64_t number, int socket);
  // It does not go after all.
  void resume(uint64_t number);
  size_t size() const { return listeners_.size(); }
  // Looks at once whether those of a process that has ended are closed.
  void body_ended() { drop_closed(); }

 private:
  struct Listener {
    pid_t body = 0;
    NodeId home;
    HomeId id;
    ino_t inode = 0;
    ListenerShape shape;  // with the address that it has here
    bool is_paused = false;
    bool is_open = false;  // a process has been seen to have it
    bool was_offered = false, has_accepted = false;
    SocketUsers users;
    bool is_own = false;  // the process's socket has its home here
    HomeId lent;          // the process's socket is that one's; 0: its own
    // By krgd, for its process, which is still to be made.
    std::chrono::steady_clock::time_point kept = std::chrono::steady_clock::now();
  };

  void answer(const ListenerAsk& question, Messenger::Reply reply);
  void on_offer(NodeId from, const ListenerOffer& offer, Messenger::Reply reply);
  void take_offer(NodeId from, const ListenerOffer& offer, Messenger::Reply reply);
  void attach(uint64_t number, const ListenerPlace& left, bool shares);
  uint64_t add(Listener listener);
  void give_back_all(const Listener& listener, int socket);
  Result<UniqueFd> open_socket(Listener& listener, const ListenerShape& shape, bool is_shared);
  Result<UniqueFd> borrow(Listener& listener, const ListenerShape& shape);
  HomeListener* lender_of(const Listener& listener);
  bool is_closed(Listener& listener, const std::set<ino_t>& listening);
  void let_go(uint64_t number, const Listener& listener);
  void drop_closed();

  NodeContext& node_;
  RemoteHome& home_;
  SocketRelays& sockets_;
  std::map<uint64_t, Listener> listeners_;
  std::map<ino_t, HomeId> kept_;  // this node's own, whose processes may be elsewhere
  struct Lendable {
    NodeId home;
    ListenerShape place;
    HomeId id;
  };
  std::vector<Lendable> lendable_;
  uint64_t next_ = 1;
  Alive alive_;
  // krgd has no descriptor of them that would tell when they are closed: the kernel tells of TCP
  // sockets, others are looked for.
  EventLoop::Timer looks_;
  std::optional<SocketCloses> closes_;
};

}  // namespace krg
