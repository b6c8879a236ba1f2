// Server: runs the protocol for all sets of a node: steps on entries, their messages, local
// operations, the directory of the objects that this node manages. Kddm's parts stand on it:
// RecoveryRun (loss of nodes) and those that kddm.cpp names.
//
// When a node has died the server stops in two stages. Flushing: local events wait, requests to
// the manager are dropped (all are asked again), the other messages are handled as ever. Halted:
// messages wait too, and so does what the recovery's own steps send and tell.
//
// Where there is no memory for bytes that came, their message waits, and what comes behind it, as
// if the network were slow: the loop goes on, so that other nodes hear of this one, and so that it
// notices the end of the programs that the kernel takes memory from.
//
// Threads: the loop's thread. Owned by Kddm. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <chrono>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "kddm_outbox.h"
#include "kddm_wire.h"
#include "krg/shmem/kddm.h"
#include "krg/shmem/kddm_protocol.h"
#include "manager_ring.h"
#include "scarce_memory.h"

namespace krg::kddm {

struct ObjectKey {
  SetId set;
  ObjectId object;
};

struct Object {
  Entry entry;
  std::span<std::byte> bytes;  // empty: the set's memory holds nothing for it
  // Among the objects that have bytes, the ones used last at the end.
  std::list<ObjectKey>::iterator use = {};
};

struct Set {
  SetId id;
  KddmSetOptions options;
  ScarceMemory* scarce = nullptr;  // options.memory, if it is such
  std::unordered_map<uint64_t, Object> objects;
  std::unordered_set<uint64_t> evicted;                    // objects that went for want of memory
  std::unordered_map<uint64_t, DirectoryEntry> directory;  // of what this node manages
  KddmStatistics statistics;
};

class Server : public std::enable_shared_from_this<Server> {
 public:
  enum class Mode : uint8_t { kRunning, kFlushing, kHalted };

  explicit Server(Messenger& messenger);
  // Takes the messages. Once, after it is owned.
  void start();

  Status open_set(SetId id, KddmSetOptions options);
  void close_set(SetId id);
  // Nothing about this set is kept from now on.
  void ignore_set(SetId id);
  Set* find_set(SetId id);
  // The node that ownership was promised to last. REQUIRES: this node manages the object.
  NodeId tail_of(const Set& set, ObjectId object) const;
  std::unordered_map<uint64_t, std::unique_ptr<Set>>& sets() { return sets_; }

  void start(SetId id, ObjectId object, Kddm::Touch touch, OpKind kind, Kddm::Granted granted);
  void prefetch(SetId id, ObjectId first, uint64_t count);
  void start_range(SetId id, ObjectId first, uint64_t count, Kddm::Touch touch, OpKind kind,
                   const Kddm::GrantedOne& granted);
  // Lost objects are removed first, once (`again`: that has been tried).
  void replace(SetId id, ObjectId object, std::string bytes, std::function<void(Status)> done,
               bool again = false);
  void remove(SetId id, ObjectId object, std::function<void()> done);
  void put(SetId id, ObjectId object);
  void flush(SetId id, ObjectId object, NodeId target);
  Result<std::span<std::byte>> try_pin(SetId id, ObjectId object, OpKind kind);

  uint16_t slot_of(const Set& set, ObjectId object) const;
  Place place_of(const Set& set, ObjectId object) const;
  Object& object_of(Set& set, ObjectId object);

  // Runs one protocol call on an object and carries out what it says. `data`: the object's bytes
  // that came with a message.
  template <class Call>
  void step(Set& set, ObjectId object, std::string_view data, Call call) {
    Object& at = object_of(set, object);
    Actions actions = std::exchange(spare_actions_, {});
    call(at.entry, place_of(set, object), actions);
    carry_out(set, object, at, actions, data);
  }

  // Puts a local event off while the server stops. Returns whether it did.
  bool put_off(std::function<void()> event);

  // What objects take here, those used last at the end; and who wants to know that they take more,
  // or that an object went.
  size_t bytes_here() const { return bytes_here_; }
  const std::list<ObjectKey>& by_use() const { return by_use_; }
  std::function<void()> on_growth;
  std::function<void(const ObjectKey&)> on_release;

  // For RecoveryRun.
  Mode mode() const { return mode_; }
  void flush_out();  // Running → Flushing
  void halt();       // Flushing → Halted
  void resume();     // Halted → Running
  // Halted → Flushing, for another loss.
  void flush_out_again();
  // Messages of the dead are not heard any more; adopt_ring() makes others their objects'
  // managers.
  void mute(NodeId dead) { muted_.set_dead(dead); }
  bool is_muted(NodeId node) const { return muted_.is_dead(node); }
  void adopt_ring() { ring_ = muted_; }
  const ManagerRing& ring() const { return ring_; }
  const ManagerRing& next_ring() const { return muted_; }
  // Messages for sets that are not open here.
  void forget_early() { early_.clear(); }
  // Runs `event` once the messages that have come before it have been received.
  void in_turn(std::function<void()> event);

  // What is known of the objects that this node manages or mirrors, as far as their owners told.
  struct Existence {
    uint64_t version;
    uint16_t slot;
    bool exists;
  };
  using ExistenceMap = std::unordered_map<uint64_t, std::unordered_map<uint64_t, Existence>>;
  const ExistenceMap& existence() const { return existence_; }
  // Whether somebody had the object, for all that this node, its manager, knows.
  bool existed(SetId set, ObjectId object) const;
  void note(const ExistenceNote& note);
  // What is lost counts as existing until it is removed, for the manager and the mirror.
  void note_loss(SetId set, ObjectId object, uint16_t slot, uint64_t version);
  // Tells the mirrors, which may have changed.
  void mirror_notes();

  // Decisions of a recovery about sets that were not open here then.
  struct LateDecision {
    ObjectId object;
    Decision decision;
  };
  std::unordered_map<uint64_t, std::vector<LateDecision>> late_decisions;
  void apply(Set& set, ObjectId object, const Decision& decision);

  Messenger& messenger;
  Outbox outbox;

 private:
  struct Operation {
    SetId set;
    Kddm::Granted granted;          // get, grab
    std::function<void()> removed;  // remove
  };
  struct Held {
    NodeId from;
    Wire wire;
    std::string payload;
  };
  using Calls = std::vector<std::function<void()>>;
  // Bytes that have come for neighbours, on their way into their set's memory: together, but before
  // anything else looks at them. They are those of the message that is being received.
  struct Arrived {
    std::shared_ptr<ObjectMemory> memory;
    ObjectId first = {};
    size_t count = 0;
    bool readable = false;  // none of them is pinned
    std::string_view bytes;
  };

  // What came, or something else that has its turn among what came.
  struct InTurn {
    Held message = {};
    std::function<void()> event = {};
  };

  void receive(NodeId from, const Wire& wire, std::string_view payload);
  bool try_receive(NodeId from, const Wire& wire, std::string_view payload);
  void keep_early(NodeId from, const Wire& wire, std::string_view payload);
  void receive_waiting();
  void wait_for_turn(NodeId from, const Wire& wire, std::string_view payload);
  void look_for_memory();
  void receive_held();
  void receive_own(const std::vector<Outbox::Own>& messages);
  void receive_one(Set& set, ObjectId object, NodeId from, const Message& message,
                   std::string_view data);
  void arrive(Set& set, ObjectId object, Object& at, std::string_view data);
  void install_arrived();
  void direct(Set& set, ObjectId object, NodeId from, const Message& message);
  void carry_out(Set& set, ObjectId object, Object& at, Actions& actions, std::string_view data);
  void perform(Set& set, ObjectId object, Object& at, const Action& action, std::string_view data,
               Calls& calls);
  void send(Set& set, ObjectId object, const Object& at, const Action& action);
  void place(Set& set, ObjectId object, Object& at);
  void release(Set& set, ObjectId object, Object& at);
  void settle();
  void used(Object& at) { by_use_.splice(by_use_.end(), by_use_, at.use); }
  void first_touch(SetId id, ObjectId object);
  void filled(SetId id, ObjectId object, const Status& made);
  void complete(Set& set, ObjectId object, Object& at, const Action& action, Calls& calls);
  void tell_existence(Set& set, ObjectId object, uint64_t version, bool exists);
  void send_note(NodeId to, const ExistenceNote& note);
  void forget_if_initial(Set& set, ObjectId object);

  Mode mode_ = Mode::kRunning;
  ManagerRing ring_, muted_;
  std::unordered_map<uint64_t, std::unique_ptr<Set>> sets_;
  std::unordered_map<uint64_t, std::deque<Held>> early_;
  std::unordered_set<uint64_t> ignored_;  // sets that have been, 8 bytes each
  std::unordered_map<OpId, Operation> operations_;
  ExistenceMap existence_;
  OpId next_operation_ = 1;
  std::vector<std::shared_ptr<ObjectMemory>> unsettled_;  // with releases since the last settle()
  Arrived arrived_;
  Actions spare_actions_;  // empty; keeps its storage from step to step
  std::list<ObjectKey> by_use_;
  size_t bytes_here_ = 0;
  // While the server stops.
  std::deque<std::function<void()>> held_events_;
  std::deque<Held> held_messages_;
  Calls held_calls_;
  // Messages that came while there was no memory for the bytes of the first of them, when there was
  // some last, and a timer that is set where nobody looks at them just now.
  std::deque<InTurn> waiting_;
  std::chrono::steady_clock::time_point waiting_since_ = {};
  EventLoop::Timer waiting_timer_;
  bool receives_waiting_ = false;
};

}  // namespace krg::kddm
