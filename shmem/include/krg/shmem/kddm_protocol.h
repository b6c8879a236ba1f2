// The coherence protocol of KDDM objects: one writer or many readers, as a pure state machine.
//
// Every object has a manager node (by hash) and one owner. The manager only orders requests: it
// remembers the last node that ownership was promised to (the tail) and forwards each request
// there. The owner holds the copyset and serves requests in the order in which they arrive; a
// promised owner queues them until ownership reaches it. So a request takes at the most two hops to
// the owner, and nobody ever blocks at the manager. Invalidations go out from the old owner, their
// acks go straight to the new one. docs: shmem/README.md has the table of states and events; a test
// holds it to this code.
//
// Nothing here does I/O, waits or takes time: step() changes one entry and says what has to be
// done. Whoever runs it delivers messages in order per pair of nodes, each exactly once.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "krg/runtime/types.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/node_set.h"
#include "krg/shmem/short_queue.h"

namespace krg::kddm {

// What a node knows of one object. The names are the original's.
enum class State : uint8_t {
  kInvCopy,        // no copy here
  kReadCopy,       // a valid copy; the owner is elsewhere
  kInvOwner,       // owner of an object that does not exist yet
  kReadOwner,      // owner; others have copies
  kWriteOwner,     // owner of the only copy
  kWaitAckInv,     // owner that wants to write, waits for its copyset's acks
  kWaitAckWrite,   // became owner to write, waits for the old copyset's acks
  kWaitChgOwnAck,  // owner that gives the object to another node's memory, waits for the manager's
                   // word
  kWaitObjRead,    // asked for a copy
  kWaitObjWrite,   // asked for ownership
  kWaitObjRmAck,   // owner that removes the object, waits for its copyset's acks
  kInvFilling,     // owner; the IO linker makes the object (first touch)
};
inline constexpr unsigned kStateCount = 12;
std::string_view name_of(State state);

enum class MessageType : uint8_t {
  kReadRequest,    // requester wants a copy        (to the manager, forwarded to the owner)
  kWriteRequest,   // requester wants ownership     (likewise)
  kRemoveRequest,  // requester wants it removed    (likewise)
  kCopy,           // a copy for reading, or word that there is no object
  kOwnership,      // the object with its ownership; `acks` invalidation acks are on their way
  kInvalidate,     // drop copies older than `version`, ack to `requester`
  kInvalidateAck,
  kGiveRequest,  // the owner wants to give the object to `requester` (to the manager)
  kGiveGranted,
  kGiveRefused,  // somebody has been promised ownership already
  kGift,         // the object, its ownership and its copyset, unasked for
  kRemoved,      // the removal that `requester` asked for is done
};
inline constexpr unsigned kMessageTypeCount = 12;
std::string_view name_of(MessageType type);

// A message about one object. Data travels beside it where with_data says so.
struct Message {
  MessageType type = MessageType::kReadRequest;
  NodeId requester = kNoNode;
  bool directed = false;   // a request that the manager has sent on; any other is for the manager
  uint64_t version = 0;    // counts the times that the object became exclusive
  bool exists = false;     // kCopy, kOwnership: there is an object
  bool lost = false;       // kCopy, kOwnership: there was one, every copy went with a failed node
  bool with_data = false;  // its bytes come along
  bool has_copy =
      false;  // kWriteRequest: the requester holds, and keeps, a valid copy of `version`
  bool first_touch = true;  // kReadRequest: make the object when there is none
  uint32_t acks = 0;        // kOwnership
  uint64_t promise = 0;     // which of the manager's promises of ownership this is about
  NodeSet copyset = {};     // kGift
};

using OpId = uint64_t;  // they grow
enum class OpKind : uint8_t { kGet, kGrab };

// How a local operation ended.
enum class Outcome : uint8_t {
  kGranted,   // pinned: the caller puts it when done
  kNoObject,  // asked without first touch and there is none
  kRemoved,   // the removal is done
  kLost,      // every copy went with a failed node, or the IO linker could not make it
};

// What step() wants done, in order.
struct Action {
  enum class Kind : uint8_t {
    kSend,        // message to `to`
    kComplete,    // tell local operation `op` its outcome
    kFirstTouch,  // have the IO linker make the object, then call filled()
    kInstall,     // the bytes that came with this message are the object now
    kDropData,    // the local bytes are no longer valid
    kRemoved,     // the owner's word that there is no such object any more
  };
  Kind kind = Kind::kSend;
  NodeId to = kNoNode;
  Message message = {};
  OpId op = 0;
  Outcome outcome = Outcome::kGranted;
};
using Actions = std::vector<Action>;

// A local operation that waits.
struct WaitingOp {
  OpId op = 0;
  OpKind kind = OpKind::kGet;
  bool first_touch = true;
};

// One object as one node sees it.
struct Entry {
  State state = State::kInvCopy;
  uint64_t version = 0;        // of the local copy, or the owner's count
  uint64_t invalid_below = 0;  // copies older than this must not be kept
  NodeSet copyset;             // owner only: nodes that may hold copies, without itself
  uint64_t promise = 0;        // owner only: the promise that it owns the object by
  OpId asked_for = 0;          // the newest operation that an outstanding read request is for
  int acks_missing = 0;        // below zero when acks came before the ownership
  unsigned readers = 0;        // local pins by get
  bool writer = false;         // local pin by grab
  bool has_data =
      false;  // the local bytes are valid (or pinned by readers that may still use them)
  bool drop_when_unpinned =
      false;  // an invalidation came: no new pins, the bytes go with the last one
  bool serve_remote_first = false;  // a local operation was served; the next turn is a remote one's
  bool read_outstanding = false;    // a request of ours is under way, answered by kCopy
  bool write_outstanding = false;   // likewise, answered by kOwnership
  bool lost = false;                // kInvOwner: not "never existed" but lost with a node
  NodeId gift_to = kNoNode;         // kWaitChgOwnAck
  NodeId remover = kNoNode;         // kWaitObjRmAck; none when it asks again after a loss
  ShortQueue<WaitingOp> waiting;    // local operations
  ShortQueue<Message> requests;     // other nodes' requests, in the manager's order
  std::vector<NodeId> deferred_acks;  // invalidations that wait for the last reader
  std::vector<OpId> removals;         // local removals under way
};

// Where this is: who we are and who manages the object.
struct Place {
  NodeId self;
  NodeId manager;
};

// Local operations. A granted operation pins the object until put().
void get(Entry& entry, const Place& place, OpId op, bool first_touch, Actions& actions);
void grab(Entry& entry, const Place& place, OpId op, bool first_touch, Actions& actions);
// Asks for a copy, or for the object to be made, before anybody needs it, where there is none here.
// Nothing is pinned, nobody is told when it has come.
void prefetch(Entry& entry, const Place& place, Actions& actions);
// Pins the object at once if that takes no message and nobody waits for it; else changes nothing.
bool try_get(Entry& entry);
bool try_grab(Entry& entry);
// REQUIRES: the object is pinned that way.
void put(Entry& entry, const Place& place, OpKind kind, Actions& actions);
void remove(Entry& entry, const Place& place, OpId op, Actions& actions);
// Gives the object to `target`'s memory if this node owns it and nothing pins it; else does
// nothing.
void give(Entry& entry, const Place& place, NodeId target, Actions& actions);
// Drops an unpinned read copy to win memory back. Returns whether it did.
bool drop_copy(Entry& entry, Actions& actions);
// The IO linker has made the object, or could not: then it counts as lost.
void filled(Entry& entry, const Place& place, bool made, Actions& actions);
// A message for this node as a holder of the object (requests after the manager forwarded them).
void receive(Entry& entry, const Place& place, const Message& message, Actions& actions);

// True when nothing would be lost by forgetting the entry (at the manager kInvOwner is the initial
// state).
bool is_initial(const Entry& entry, const Place& place);
// The entry of an object that was never touched.
Entry initial_entry(const Place& place);

// Recovery from the loss of nodes. Once every message that survivors had sent each other has been
// delivered (the caller sees to it), each survivor reports what it has, the object's manager among
// the survivors decides, and each survivor applies the decision. All other requests are asked again
// by who needs them.
struct Report {
  NodeId node;
  bool owner = false;   // owns the object, existing or not
  bool copy = false;    // has a valid copy
  bool pinned = false;  // local readers use a copy that is not the owner's
  bool exists = false;  // owner: the object has been made
  bool lost = false;    // owner: the object was lost before
  uint64_t version = 0;
};
struct Decision {
  NodeId owner;
  bool lost = false;     // nobody has it; `owner` will tell who asks
  uint64_t version = 0;  // newer than whatever was seen before
  bool exists = false;   // the owner has it: readers that still use a copy owe it their acks
  uint32_t acks = 0;     // how many such readers there are
};
Report report(const Entry& entry, const Place& place);
// `existed`: the directory (or its mirror) says that somebody had the object. Without an owner or a
// copy it is lost then.
Decision decide(const std::vector<Report>& reports, NodeId manager, bool existed);
// REQUIRES: place.manager is the manager among the survivors.
void recover(Entry& entry, const Place& place, const Decision& decision, Actions& actions);

// The manager's side: which node ownership was last promised to.
struct DirectoryEntry {
  NodeId tail;
  uint64_t promise = 0;  // counts promises, so that a gift of an older ownership is told apart
};
// A request that is not directed yet has reached the manager: says where it goes on to (kSend of
// the same message), or answers it.
void direct(DirectoryEntry& directory, NodeId from, const Message& message, Actions& actions);

}  // namespace krg::kddm
