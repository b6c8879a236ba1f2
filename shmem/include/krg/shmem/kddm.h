// Kddm: a node's share of all sets of coherent objects. It runs the protocol (kddm_protocol.h) over
// the Messenger: get for reading, grab for writing, put when done, remove. An object is pinned from
// the grant to its put; the bytes may be used in between, whichever node they came from.
//
// Every node opens a set under the same id and with the same options before it uses it; a message
// for a set that is not open yet here waits for it.
//
// Threads: the loop's thread. Callbacks run in the loop, after the call that caused them has
// returned, or inside it when the object is at hand. Limits: kMaxObjectBytes per object;
// kMaxEarlyMessages per set that is not open yet. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/messenger.h"
#include "krg/shmem/ids.h"
#include "krg/shmem/io_linker.h"
#include "krg/shmem/object_memory.h"

namespace krg {

inline constexpr size_t kMinObjectBytes = 8;
inline constexpr size_t kMaxObjectBytes = 4u << 20;
inline constexpr size_t kMaxEarlyMessages = 4096;

struct KddmSetOptions {
  size_t object_bytes = 4096;
  std::shared_ptr<IoLinker> linker = nullptr;  // none: make_zero_linker()
  // Where the objects live on this node; none: make_heap_memory().
  std::shared_ptr<ObjectMemory> memory = nullptr;
  // Locality: this many neighbours have the same manager, so that a range costs few messages ...
  uint64_t objects_per_manager = 1;
  // ... the n-th such range that of node n; else a hash says whose each is ...
  bool blocks_in_order = false;
  // ... or one node manages all of them, while it lives.
  NodeId home = kNoNode;
};

// Counters since the set was opened here.
struct KddmStatistics {
  uint64_t gets = 0;  // operations asked for
  uint64_t grabs = 0;
  uint64_t local_hits = 0;  // granted without a message
  uint64_t first_touches = 0;
  uint64_t copies_sent = 0;
  uint64_t ownerships_sent = 0;
  uint64_t invalidations_received = 0;
  uint64_t bytes_sent = 0;    // object data only
  uint64_t objects_here = 0;  // objects with valid bytes on this node now
  uint64_t objects_owned = 0;
  uint64_t copies_dropped = 0;  // over the memory limit: dropped here; another node has them ...
  uint64_t evictions = 0;       // ... or given to another node's memory
  uint64_t refetches = 0;       // came back after that
};

// A set that is open here.
struct KddmSetInfo {
  SetId id;
  size_t object_bytes = 0;
  uint64_t objects_per_manager = 0;
  NodeId home = kNoNode;
};

// What this node has sent for all sets.
struct KddmTraffic {
  uint64_t protocol_messages = 0;
  uint64_t sent = 0;  // messages that they travelled in
};

class Kddm {
 public:
  explicit Kddm(Messenger& messenger);
  ~Kddm();
  Kddm(const Kddm&) = delete;
  Kddm& operator=(const Kddm&) = delete;

  // Errors: EEXIST, EINVAL (object size).
  Status open_set(SetId set, KddmSetOptions options);
  // Forgets the set on this node; the caller sees to it that no node uses it any more. Operations
  // that wait end with ECANCELED.
  void close_set(SetId set);
  // close_set(set), for who may outlive this object: then it does nothing.
  std::function<void()> closer(SetId set);
  // The same for a set whose id nobody takes again: what other nodes still send about it is
  // dropped.
  void retire_set(SetId set);

  // Closes the set on every node; nobody takes its id again. What its linker has stored stays.
  // Operations that wait anywhere end with ECANCELED; pins end.
  void destroy_set(SetId set, std::function<void()> done);

  // While one lives, the messages of calls on this Kddm wait; then they leave as one for each node.
  // For calls on many objects. REQUIRES: it ends before the loop goes on.
  class Together {
   public:
    explicit Together(Kddm& kddm);
    ~Together();
    Together(const Together&) = delete;
    Together& operator=(const Together&) = delete;

   private:
    struct Scope;
    std::unique_ptr<Scope> scope_;
  };

  enum class Touch : uint8_t { kFirstTouch, kNoFirstTouch };
  // The bytes stay valid until put(). Errors: ENOENT (kNoFirstTouch and there is no object),
  // EOWNERDEAD (lost with a node, or its IO linker could not make it), EBADF (the set is not open
  // here), ECANCELED (it was closed meanwhile).
  using Granted = std::function<void(Result<std::span<std::byte>>)>;
  // Pins the object for reading: others may read it at the same time.
  void get(SetId set, ObjectId object, Touch touch, Granted granted);
  // Pins the object for writing: nobody else has it.
  void grab(SetId set, ObjectId object, Touch touch, Granted granted);
  // get() or grab() of `count` objects from `first` on, in few messages: `granted` runs for each.
  using GrantedOne = std::function<void(ObjectId, Result<std::span<std::byte>>)>;
  void get_range(SetId set, ObjectId first, uint64_t count, Touch touch, const GrantedOne& granted);
  void grab_range(SetId set, ObjectId first, uint64_t count, Touch touch,
                  const GrantedOne& granted);
  // Has `count` objects from `first` on brought here for reading, or made, where they are not here
  // yet. Nothing is pinned, nobody is told: a get that comes later finds them, or waits less.
  void prefetch(SetId set, ObjectId first, uint64_t count);
  // get() and grab() without waiting. Errors: EAGAIN (it would take a message or a wait), EBADF.
  Result<std::span<std::byte>> try_get(SetId set, ObjectId object);
  Result<std::span<std::byte>> try_grab(SetId set, ObjectId object);
  // Ends one get or the grab of this object.
  void put(SetId set, ObjectId object);
  // Removes the object everywhere; `done` when it is gone.
  void remove(SetId set, ObjectId object, std::function<void()> done);
  // Replaces the whole content, also of an object that was lost. Errors: those of grab(), EINVAL
  // (not the object's size).
  void set(SetId set, ObjectId object, std::string bytes, std::function<void(Status)> done);
  // Has the IO linker write the object back, where it is. Errors: the linker's, ENOENT, EOWNERDEAD,
  // EHOSTDOWN (its node died meanwhile).
  void sync(SetId set, ObjectId object, std::function<void(Status)> done);
  // Moves an object that this node owns, if nobody uses it, into `target`'s memory, where the set
  // is open; drops a mere copy.
  void flush(SetId set, ObjectId object, NodeId target);
  // The same for all objects of the set that are here.
  void flush(SetId set, NodeId target);
  // Local look-up only: the bytes if they are valid here, unpinned: use them before the next event.
  std::span<const std::byte> find(SetId set, ObjectId object) const;
  // Calls `visit` for what find() would give.
  void for_each(SetId set,
                const std::function<void(ObjectId, std::span<const std::byte>)>& visit) const;

  // Calls `visit` for each object of the set that exists and that this node owns. Errors: EAGAIN:
  // one is on its way, or has been asked for here; EOWNERDEAD: one was lost with its node.
  Status for_each_owned(SetId set, const std::function<void(ObjectId)>& visit) const;

  // What all sets' objects may take on this node, and that this node takes part in evictions: over
  // it copies are dropped, then cold objects are given to the node with the most room among those
  // that have said their limits. 0: none. A limit that no node's room allows to keep is exceeded.
  void set_memory_limit(size_t bytes);
  size_t memory_used() const;
  size_t memory_limit() const;  // 0: none

  // A node is dead (Membership::on_death; every survivor has to be told). Operations wait until the
  // survivors have agreed on what they have: objects with a copy go on, the others are lost. Ends
  // when all survivors have been told.
  void node_died(NodeId node);

  // REQUIRES: the set is open here.
  KddmStatistics statistics(SetId set) const;
  std::vector<KddmSetInfo> sets() const;
  KddmTraffic traffic() const;
  // Each object of the set that this node knows of, with the protocol's name of its state.
  void for_each_state(SetId set,
                      const std::function<void(ObjectId, std::string_view state)>& visit) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace krg
