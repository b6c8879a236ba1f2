// ClientSession: one program that uses KDDM sets on this node: its socket, its pins, and where they
// lie in the memory that it shares with us (client_wire.h, pin_arena.h).
//
// A pin is a copy: bytes go into the arena when it is granted, and back into the object when a
// program puts what it wrote. So a program sees no object but those it has pinned, and one that
// dies half way through a write leaves the object as it was. Neighbours may be pinned as one
// (range_pin.h).
//
// Threads: the loop's thread. Owned by KddmService; callbacks of the Kddm hold it weakly.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "client_barriers.h"
#include "client_wire.h"
#include "krg/runtime/event_loop.h"
#include "krg/runtime/messenger.h"
#include "krg/shmem/kddm.h"
#include "pin_arena.h"
#include "range_pin.h"
#include "set_names.h"
#include "set_uses.h"

namespace krg {

class ClientSession : public std::enable_shared_from_this<ClientSession> {
 public:
  struct Parts {
    Messenger& messenger;
    Kddm& kddm;
    SetNames& names;
    ClientBarriers& barriers;
    std::shared_ptr<SetUses> uses;
  };

  ClientSession(const Parts& parts, UniqueFd socket, std::unique_ptr<PinArena> arena);
  ~ClientSession();
  ClientSession(const ClientSession&) = delete;
  ClientSession& operator=(const ClientSession&) = delete;

  // Serves the program from now on. `ended` is told when the socket has closed; it may destroy
  // this.
  Status start(std::function<void()> ended);
  int memory() const { return arena_->fd(); }
  // Puts the pins of a set that is about to be closed. The program is told when it puts them.
  void release_pins_of(SetId set);

 private:
  struct Pin {
    SetId set;
    ObjectId object;
    bool writing = false;
    std::span<std::byte> bytes;  // the object's; empty once the pin was released
    PinArena::Place place;
    std::shared_ptr<RangePin> range;  // neighbours, in place of the object
  };
  using Request = client_wire::ClientRequest;
  using Reply = client_wire::ClientReply;
  using Granted = Result<std::span<std::byte>>;

  void receive(uint32_t events);
  bool receive_one();
  void dispatch(const Request& request, std::string_view payload);
  void name(const Request& request, std::string_view payload);
  // Pins for neighbours that are asked for at once are asked for in one range.
  void add_neighbour(const Request& request);
  void pin_neighbours();
  void take_range(const Request& request);
  void range_taken(const Request& request, uint64_t id, const Status& taken);
  void try_pin(const Request& request, bool writing);
  static void pinned(const std::weak_ptr<ClientSession>& session, const Parts& parts,
                     const Request& request, const Granted& bytes);
  void granted(const Request& request, bool writing, const Granted& bytes);
  void put(const Request& request);
  void release(Pin& pin, bool store);
  void set(const Request& request, std::string_view payload);
  void remove(const Request& request);
  void flush(const Request& request);
  void statistics(const Request& request);
  void join_barrier(const Request& request, std::string_view name);
  void wait_at_barrier(const Request& request);
  void leave_barrier(const Request& request);

  void answer(const Request& request, const Status& status);
  void reply(const Reply& reply, std::string_view payload = {});
  void send_waiting();
  void end();

  Parts parts_;
  UniqueFd socket_;
  std::unique_ptr<PinArena> arena_;
  EventLoop::Watch watch_;
  std::function<void()> ended_;
  std::unordered_map<uint64_t, Pin> pins_;
  uint64_t next_pin_ = 1;
  std::vector<Request> neighbours_;           // not asked for yet
  std::unordered_set<uint64_t> memberships_;  // of barriers, those that it joins at the moment too
  std::deque<std::string> replies_;           // that the socket did not take yet
  bool lacks_room_ = false;
};

}  // namespace krg
