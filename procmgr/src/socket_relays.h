// SocketRelays: native socket pairs of this node that stand for connected sockets of other nodes:
// the body has one end, the other is joined to the real socket at its home (home_socket.h). Order,
// shutdown(2) and end of file pass in both directions.
// Owner: Descriptors. Threads: the loop's thread. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "carried_socket.h"
#include "krg/runtime/unique_fd.h"
#include "passed_fds.h"
#include "remote_home.h"
#include "socket_messages.h"
#include "socket_turns.h"
#include "socket_users.h"

namespace krg {

class SocketRelays {
 public:
  SocketRelays(NodeContext& node, RemoteHome& home);
  ~SocketRelays();
  SocketRelays(const SocketRelays&) = delete;
  SocketRelays& operator=(const SocketRelays&) = delete;

  // How sockets of this node pass descriptors to other nodes. Set before any process runs.
  FdPassing& passing() { return passing_; }
  // Whose turn it is where several relays end at one socket of this node.
  SocketTurns& turns() { return turns_; }
  // Called before what a body has written goes home (StreamTree::set_settling()).
  void set_settling(std::function<void()> settle_offsets) {
    settle_offsets_ = std::move(settle_offsets);
  }

  // The body's end. The relay takes over one reference at home, which the caller has asked for.
  // `carried`: in the place of a relay that is paused; it begins when that one has left.
  struct Shape {
    int type = 0, flags = 0;
    bool passes_fds = false;  // it is a unix socket at home
  };
  Result<UniqueFd> open(pid_t body, NodeId home, HomeId id, const Shape& shape,
                        const CarriedSocket* carried = nullptr);
  // The same with an end that is connected to the body's, or will be: a socket that does not wait.
  Status join(UniqueFd local, pid_t body, NodeId home, HomeId id);
  // Takes the joint of the body's end `accepted` apart, which closes nothing at home: the socket
  // there, with the reference. What is on the way to the body is added to `came`. Nothing when
  // that end is none of ours.
  struct Source {
    NodeId home;
    HomeId id;
  };
  std::optional<Source> take_back(int accepted, std::string& came);

  // The relay of the socket `body_end` (a copy of it), whose body may move on without a chain of
  // relays.
  std::optional<uint64_t> find(int body_end) const;
  // The body stands still, and no other process has its end: nothing goes to and fro until it is
  // resumed, or until the last copy of its end is closed, which means that it has moved. `done`:
  // what is to be carried is here.
  void pause(const std::vector<uint64_t>& numbers, std::function<void()> done);
  void resume(uint64_t number);
  // What is to go along. Nothing when the relay is not paused, or not all can be had.
  std::optional<CarriedSocket> carry(uint64_t number, int body_end);

  // As a recipe has it (FdRecipe::detail).
  uint32_t detail(uint64_t number) const;
  // What another node packed to be passed is not needed.
  void drop_passed(const std::string& passed);

  // Runs `done` when what the body wrote has arrived at home.
  void drain(pid_t body, std::function<void()> done);
  size_t size() const { return relays_.size(); }

  // Of a body that stands still: what its end has to do with the socket at home (Descriptors::
  // RelayedSocket). None: it is no end of ours. Errors: EAGAIN: something is on its way here.
  struct Described {
    NodeId home;
    HomeId id;
    uint64_t arrived = 0;
    std::string unread, unsent;
  };
  Result<std::optional<Described>> describe(int end) const;
  // Nothing more goes home as long as the result lives.
  std::shared_ptr<void> hold();

 private:
  struct Relay;
  struct Piece;
  Status begin(std::unique_ptr<Relay> relay, SocketAttach::How how);
  void attach(const Relay& relay, SocketAttach::How how);
  void leave_if_moved(Relay& relay);
  void await_closes();
  Result<std::vector<CarriedPiece>> pack(std::vector<WaitingPiece> pieces);
  void unpack(Relay& relay, Piece& piece, std::string_view passed);
  void pump(uint64_t number);
  void pump_to_home(Relay& relay);
  void end_if_closed(Relay& relay);
  void send_home(Relay& relay, bool is_end, std::string_view data, std::string passed = {});
  void take_from_home(Relay& relay, const SocketToBody& message, std::string_view payload,
                      Messenger::Reply reply);
  void answer(const SocketAsk& question, Messenger::Reply reply);
  void on_looked(const SocketAsk& question, Acceptance reading, Messenger::Reply reply);
  void take_passed(uint64_t number, uint64_t piece, Result<std::vector<UniqueFd>> fds);
  void pump_to_body(Relay& relay);
  void keep_first_end(Relay& relay, int given);
  void keep_end(Relay& relay);
  void await_leftovers();
  void look_for_leftovers(uint64_t number, bool body_has_ended, std::function<void()> looked);
  struct User {
    pid_t pid = 0;
    bool polls = false;  // it has an epoll instance
  };
  void on_user(uint64_t number, uint64_t piece, User user);
  void take_leftovers(Relay& relay);
  void close(uint64_t number);
  const Relay* find_by_end(int end) const;
  void release();

  NodeContext& node_;
  FdPassing passing_;
  SocketTurns turns_;
  std::function<void()> settle_offsets_ = [] {};
  std::unordered_map<uint64_t, std::unique_ptr<Relay>> relays_;
  std::string buffer_;
  uint64_t next_ = 1, next_piece_ = 1;
  EventLoop::Timer closes_;     // runs while there are relays of datagrams
  EventLoop::Timer leftovers_;  // runs while ends are kept
  size_t holders_ = 0;
  std::shared_ptr<SocketRelays*> self_ = std::make_shared<SocketRelays*>(this);
};

}  // namespace krg
