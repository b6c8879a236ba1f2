// SimCluster: many nodes' protocol engines in one process over a network that delays and reorders
// as it likes (sim_network.h); what is said alike about neighbours may arrive as a run. Threads on
// the nodes get, grab, put and remove objects, two at a time where the options say so; nodes give
// and drop objects at whim or because they are over their memory limit; nodes die. Everything
// follows from a seed: the same options run the same steps.
//
// Checked on the way:
//   after each step   one owner at the most, one writer, no reader beside a writer: kept as sums,
//                     of which the step changes its entry's share
//   now and then      the sums against all entries; every valid copy is known to the owner and
//   (each step in     holds the owner's bytes
//   small clusters)
//   at each grant     a read is not older than what had been written when it began, a grab sees the
//                     last write, an object is missing or lost only when it may be
//   at each put       the bytes are those of the grant: nobody wrote them meanwhile
//   at the end        nobody waits, each object has one owner, nobody is over the memory limit, and
//                     the recorded history is sequentially consistent
//
// Owned by a test; no threads. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "krg/shmem/kddm_protocol.h"
#include "sequential_consistency.h"
#include "sim_faults.h"
#include "sim_network.h"

namespace krg::kddm {

struct SimOptions {
  uint64_t seed = 0;
  unsigned nodes = 4;
  unsigned objects = 2;
  unsigned threads_per_node = 2;
  unsigned steps = 20'000;
  unsigned grab_percent = 50;  // of operations that are no removals; the others are gets
  unsigned remove_percent = 2;
  unsigned give_percent = 5;
  unsigned drop_percent = 5;
  unsigned prefetch_percent = 5;  // of runs of neighbours
  unsigned nest_percent = 20;     // a thread that has an object asks for a second one, else it puts
  unsigned memory_limit = 0;      // objects a node may hold before it evicts; 0: no limit
  unsigned kill_every_steps = 0;  // 0: no node dies
  Fault fault = Fault::kNone;
};

// What a step may be caused by: the messages, and these.
enum class LocalEvent : uint8_t {
  kGet,
  kGrab,
  kPut,
  kRemove,
  kGive,
  kDrop,
  kFilled,
  kRecover,
  kPrefetch
};
inline constexpr unsigned kEventCount = kMessageTypeCount + 9;
std::string_view name_of_event(unsigned event);

// For each state and event, the states after it that were seen, as bits.
using Transitions = std::array<std::array<uint16_t, kEventCount>, kStateCount>;

class SimCluster {
 public:
  explicit SimCluster(const SimOptions& options);

  // Runs all steps and the checks of the end. Returns whether all held.
  bool run();
  // What went wrong first; empty when nothing did.
  const std::string& failure() const { return failure_; }

  const Transitions& transitions() const { return seen_; }
  uint64_t grants() const { return grants_; }
  uint64_t evictions() const { return evictions_; }
  unsigned lost_objects() const;
  size_t recorded_accesses() const { return accesses_.size(); }
  // Of everything that happened, in order: equal runs have equal digests.
  uint64_t digest() const { return digest_; }

 private:
  struct Pin {
    unsigned object = 0;
    OpKind kind = OpKind::kGet;
    uint64_t data = 0;    // the bytes when it was granted, or that it wrote
    uint64_t losses = 0;  // of the object by then: a lost one's pinned bytes mean nothing
  };
  struct Thread {
    bool waiting = false;
    std::vector<Pin> pins;  // in the order of their objects, so that nobody waits in a circle
    // The operation that it waits for, and what was known when it began.
    unsigned object = 0;
    OpKind kind = OpKind::kGet;
    bool removing = false;
    uint64_t seen_before = 0;     // the oldest value that may be seen
    uint64_t written_before = 0;  // the newest value that had been written completely
    uint64_t removals_seen = 0;   // removals begun by then
    uint64_t losses_seen = 0;     // losses that were over by then
    bool must_exist = false;      // the object was there and nobody was removing it
  };
  struct Object {
    Entry entry;
    DirectoryEntry directory;
    uint64_t data = 0;
    bool filling = false;
    std::map<OpId, unsigned> waiting;  // operation → thread
  };
  struct Node {
    std::vector<Object> objects;
    std::vector<Thread> threads;
    bool alive = true;
    unsigned held = 0;  // objects with bytes here
  };
  // What the outside world knows of an object.
  struct History {
    bool exists = false;  // the object has been made
    bool lost = false;
    uint64_t written = 0;     // value of the newest finished write, or first touch
    uint64_t writing = 0;     // value of the newest write begun
    uint64_t next = 1;        // values are unique and grow
    uint64_t dead_below = 0;  // finished removals have done away with all older values
    uint64_t removals_begun = 0;
    uint64_t removals_pending = 0;
    uint64_t losses = 0;
  };
  // The sums over all living nodes' entries of an object that the invariants are about.
  struct Tally {
    int owners = 0, writers = 0, readers = 0;
    bool operator==(const Tally&) const = default;
  };
  static Tally tally_of(const Entry& entry);

  NodeId manager(unsigned object) const;
  Place place(unsigned node, unsigned object) const;
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }
  bool chance(unsigned percent) { return pick(100) < percent; }
  // Notes the first thing that went wrong. Returns `holds`.
  bool expect(bool holds, std::string_view what, unsigned object);
  std::string states(unsigned object) const;

  // sim_cluster.cpp: the steps.
  void step();
  bool deliver_one();
  void deliver(SimNetwork::Packet& packet);
  void deliver_rest_of_run(SimNetwork::Packet packet);
  using Call = std::function<void(Entry&, const Place&, Actions&)>;
  void run_step(unsigned node, unsigned object, unsigned event, const Call& call);
  void perform(unsigned node, unsigned object, Actions& actions);
  void send(unsigned node, unsigned object, Action& action);
  void kill_one();
  void recover_object(unsigned object);
  void drain();
  void settle_memory();
  bool finish_local_work();

  // sim_threads.cpp: what threads and nodes do by themselves, and what they must see.
  void local_step();
  bool evict_from(unsigned node);
  void prefetch_run(unsigned node, unsigned first);
  void fill(unsigned node, unsigned object);
  void thread_step(unsigned node, unsigned index);
  void start(unsigned node, unsigned index, unsigned object);
  void release(unsigned node, Thread& thread);
  void completed(unsigned node, unsigned object, OpId op, Outcome outcome);
  void check_granted(unsigned node, unsigned object, unsigned index);
  void check_missing(Thread& thread, unsigned object, Outcome outcome);

  // sim_checks.cpp
  void check_step(unsigned object);
  void check_entries(unsigned object);
  void check_end();

  SimOptions options_;
  std::mt19937_64 random_;
  FaultInjector faults_;
  SimNetwork network_;
  Transitions seen_{};
  std::vector<Node> nodes_;
  std::vector<Tally> tallies_;
  std::vector<History> history_;
  AccessHistory accesses_;
  std::string failure_;
  OpId next_op_ = 1;
  uint64_t grants_ = 0, evictions_ = 0, steps_run_ = 0;
  uint64_t digest_ = 0;
  bool draining_ = false;
  bool recovering_ = false;
  uint64_t arriving_ = 0;  // the bytes that came with the message being delivered
};

}  // namespace krg::kddm
