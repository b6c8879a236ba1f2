// SimCluster: many nodes' protocol engines in one process over a network that delays and reorders
// as it likes (in order per pair of nodes only). Every run is a seed. After each step the
// invariants are checked; every grant is checked against the history, which makes the protocol
// linearizable per object. SPDX-License-Identifier: GPL-2.0-or-later
#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>

#include "krg/runtime/check.h"
#include "krg/shmem/kddm_protocol.h"

namespace krg::kddm {
namespace {

struct SimOptions {
  uint64_t seed = 0;
  unsigned nodes = 4;
  unsigned objects = 2;
  unsigned threads_per_node = 2;
  unsigned steps = 20'000;
  unsigned remove_percent = 2;
  unsigned give_percent = 5;
  unsigned drop_percent = 5;
  unsigned kill_every_steps = 0;  // 0: no node dies
};

// Which transitions were seen: state before × what happened → states after.
using Transitions = std::map<std::pair<State, std::string>, std::set<State>>;

class SimCluster {
 public:
  SimCluster(const SimOptions& options, Transitions* seen)
      : options_(options), random_(options.seed), seen_(seen) {
    nodes_.resize(options.nodes);
    for (unsigned n = 0; n < options.nodes; ++n) {
      for (unsigned o = 0; o < options.objects; ++o) {
        nodes_[n].objects.push_back({initial_entry(place(n, o)), {manager(o), 0}, 0, false, {}});
      }
      nodes_[n].threads.resize(options.threads_per_node);
    }
    history_.resize(options.objects);
  }

  void run() {
    for (unsigned step = 0; step < options_.steps; ++step) {
      if (options_.kill_every_steps && step % options_.kill_every_steps == 0 && step > 0)
        kill_one();
      if (pick(3) == 0) {
        local_step();
      } else if (!deliver_one()) {
        local_step();
      }
      if (::testing::Test::HasFatalFailure()) return;
    }
    drain();
  }

  unsigned grants() const { return grants_; }
  unsigned lost_objects() const {
    unsigned lost = 0;
    for (const History& history : history_) lost += history.lost;
    return lost;
  }

 private:
  struct Wire {
    unsigned object;
    Message message;
    uint64_t data;
  };
  struct Thread {
    enum { kIdle, kWaiting, kHolding } phase = kIdle;
    unsigned object = 0;
    OpKind kind = OpKind::kGet;
    bool removing = false;
    uint64_t seen_before =
        0;  // the newest value that had been written completely when the operation began
    uint64_t removals_before = 0;
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
  };
  struct History {
    bool exists = false;  // the object has been made
    bool lost = false;
    uint64_t written = 0;  // value of the newest finished write
    uint64_t writing = 0;  // value of the newest write begun
    uint64_t next = 1;     // values are unique and grow
  };

  // The first living node from the object's place in the ring.
  NodeId manager(unsigned object) const {
    unsigned node = object % options_.nodes;
    while (!nodes_[node].alive) node = (node + 1) % options_.nodes;
    return NodeId{static_cast<uint16_t>(node)};
  }
  Place place(unsigned node, unsigned object) const {
    return {NodeId{static_cast<uint16_t>(node)}, manager(object)};
  }
  unsigned pick(unsigned below) { return static_cast<unsigned>(random_() % below); }

  // Runs one protocol call on an entry, notes the transition, and carries its actions out.
  template <class Call>
  void run_step(unsigned node, unsigned object, const std::string& event, Call call) {
    Object& at = nodes_[node].objects[object];
    const State before = at.entry.state;
    readers_before_ = at.entry.readers;
    Actions actions;
    call(at.entry, place(node, object), actions);
    if (seen_) (*seen_)[{before, event}].insert(at.entry.state);
    perform(node, object, actions);
    check_invariants(object);
  }

  void perform(unsigned node, unsigned object, Actions& actions) {
    Object& at = nodes_[node].objects[object];
    for (Action& action : actions) {
      switch (action.kind) {
        case Action::Kind::kSend:
          if (nodes_[action.to.value].alive)
            network_[{node, action.to.value}].push_back(
                {object, std::move(action.message), at.data});
          break;
        case Action::Kind::kComplete:
          completed(node, object, action.op, action.outcome);
          break;
        case Action::Kind::kFirstTouch:
          at.filling = true;
          break;
        case Action::Kind::kInstall:
          // An object has one place in a node's memory: nobody may be using the bytes before.
          ASSERT_TRUE(readers_before_ == 0 || at.data == arriving_) << trace();
          at.data = arriving_;
          break;
        case Action::Kind::kDropData:
          at.data = 0xdead;
          break;
        case Action::Kind::kRemoved:
          history_[object].exists = history_[object].lost = false;
          break;
      }
    }
  }

  void completed(unsigned node, unsigned object, OpId op, Outcome outcome) {
    Object& at = nodes_[node].objects[object];
    ASSERT_TRUE(at.waiting.count(op)) << trace();
    Thread& thread = nodes_[node].threads[at.waiting.at(op)];
    at.waiting.erase(op);
    ++grants_;
    if (outcome != Outcome::kGranted) {
      // A removal may overtake the answer, and makes a lost object one that never was.
      const bool sure = options_.remove_percent == 0;
      ASSERT_TRUE(!sure || outcome != Outcome::kLost || history_[object].lost) << trace();
      ASSERT_FALSE(sure && outcome == Outcome::kNoObject && history_[object].lost) << trace();
      thread.phase = Thread::kIdle;
      return;
    }
    History& history = history_[object];
    ASSERT_FALSE(history.lost) << trace();
    thread.phase = Thread::kHolding;
    // With removals a value may start again from nothing, so only the removal-free runs check
    // values.
    if (options_.remove_percent == 0) {
      ASSERT_GE(at.data, thread.seen_before) << "a read went back in time; " << trace();
      ASSERT_LE(at.data, history.writing) << trace();
    }
    if (thread.kind == OpKind::kGrab) {
      if (options_.remove_percent == 0) {
        ASSERT_EQ(at.data, history.written) << "a write was lost; " << trace();
      }
      history.writing = history.next++;
      at.data = history.writing;
    }
  }

  // A node dies with all that it has. What it sent arrives up to a point; then the survivors, who
  // have heard all that they had sent each other, recover every object.
  void kill_one() {
    const unsigned victim = pick(options_.nodes);
    unsigned living = 0;
    for (Node& node : nodes_) living += node.alive;
    if (living <= 2 || !nodes_[victim].alive) return;
    for (unsigned n = pick(20); n > 0; --n) deliver_one();
    nodes_[victim].alive = false;
    for (auto& [pair, queue] : network_) {
      if (pair.first == victim) queue.resize(pick(static_cast<unsigned>(queue.size()) + 1));
      if (pair.second == victim) queue.clear();
    }
    recovering_ = true;
    while (deliver_one()) {
    }
    recovering_ = false;
    for (Thread& thread : nodes_[victim].threads) thread.phase = Thread::kIdle;
    for (unsigned o = 0; o < options_.objects; ++o) recover_object(o);
  }

  void recover_object(unsigned object) {
    std::vector<Report> reports;
    for (unsigned n = 0; n < options_.nodes; ++n)
      if (nodes_[n].alive)
        reports.push_back(report(nodes_[n].objects[object].entry, place(n, object)));
    const NodeId head = manager(object);
    const Decision decision = decide(reports, head, history_[object].exists);
    nodes_[head.value].objects[object].directory = {decision.owner, 0};
    history_[object].lost = decision.lost;
    for (unsigned n = 0; n < options_.nodes; ++n)
      if (nodes_[n].alive)
        run_step(n, object, "recover",
                 [&](Entry& e, const Place& p, Actions& a) { recover(e, p, decision, a); });
  }

  void local_step() {
    const unsigned node = pick(options_.nodes);
    if (!nodes_[node].alive) return;
    Node& here = nodes_[node];
    const unsigned object = pick(options_.objects);
    Object& at = here.objects[object];
    if (at.filling) {
      at.filling = false;
      at.data = 0;
      history_[object].exists = true;
      return run_step(node, object, "filled",
                      [](Entry& e, const Place& p, Actions& a) { filled(e, p, true, a); });
    }
    if (pick(100) < options_.give_percent) {
      NodeId target{static_cast<uint16_t>(pick(options_.nodes))};
      if (!nodes_[target.value].alive) return;
      return run_step(node, object, "give",
                      [&](Entry& e, const Place& p, Actions& a) { give(e, p, target, a); });
    }
    if (pick(100) < options_.drop_percent) {
      return run_step(node, object, "drop",
                      [](Entry& e, const Place&, Actions& a) { drop_copy(e, a); });
    }
    const unsigned index = pick(options_.threads_per_node);
    Thread& thread = here.threads[index];
    if (thread.phase == Thread::kHolding) return release(node, thread);
    if (thread.phase == Thread::kIdle && !draining_) start(node, index, object);
  }

  void start(unsigned node, unsigned index, unsigned object) {
    Thread& thread = nodes_[node].threads[index];
    thread.phase = Thread::kWaiting;
    thread.object = object;
    thread.seen_before = history_[object].written;
    const OpId op = next_op_++;
    nodes_[node].objects[object].waiting.emplace(op, index);
    if (pick(100) < options_.remove_percent) {
      return run_step(node, object, "remove",
                      [&](Entry& e, const Place& p, Actions& a) { remove(e, p, op, a); });
    }
    const bool first_touch = pick(10) != 0;
    if (pick(2) == 0) {
      thread.kind = OpKind::kGet;
      run_step(node, object, "get",
               [&](Entry& e, const Place& p, Actions& a) { get(e, p, op, first_touch, a); });
    } else {
      thread.kind = OpKind::kGrab;
      run_step(node, object, "grab",
               [&](Entry& e, const Place& p, Actions& a) { grab(e, p, op, first_touch, a); });
    }
  }

  void release(unsigned node, Thread& thread) {
    thread.phase = Thread::kIdle;
    if (thread.kind == OpKind::kGrab) {
      history_[thread.object].written = nodes_[node].objects[thread.object].data;
    }
    const OpKind kind = thread.kind;
    run_step(node, thread.object, "put",
             [&](Entry& e, const Place& p, Actions& a) { put(e, p, kind, a); });
  }

  bool deliver_one() {
    std::vector<std::pair<unsigned, unsigned>> busy;
    for (auto& [pair, queue] : network_)
      if (!queue.empty()) busy.push_back(pair);
    if (busy.empty()) return false;
    const auto [from, to] = busy[pick(static_cast<unsigned>(busy.size()))];
    Wire wire = std::move(network_[{from, to}].front());
    network_[{from, to}].pop_front();
    deliver(from, to, wire);
    return true;
  }

  void deliver(unsigned from, unsigned to, const Wire& wire) {
    const MessageType type = wire.message.type;
    const bool request = type == MessageType::kReadRequest || type == MessageType::kWriteRequest ||
                         type == MessageType::kRemoveRequest || type == MessageType::kGiveRequest;
    if (request && !wire.message.directed) {
      if (recovering_) return;  // everybody asks again after recovery
      Actions actions;
      direct(nodes_[to].objects[wire.object].directory, NodeId{static_cast<uint16_t>(from)},
             wire.message, actions);
      return perform(to, wire.object, actions);
    }
    arriving_ = wire.data;
    run_step(to, wire.object, std::string(name_of(type)),
             [&](Entry& e, const Place& p, Actions& a) { receive(e, p, wire.message, a); });
  }

  void check_invariants(unsigned object) {
    unsigned owners = 0, writers = 0, readers = 0;
    for (Node& node : nodes_) {
      if (!node.alive) continue;
      const Entry& entry = node.objects[object].entry;
      const bool owner = entry.state == State::kInvOwner || entry.state == State::kReadOwner ||
                         entry.state == State::kWriteOwner || entry.state == State::kWaitAckInv ||
                         entry.state == State::kWaitAckWrite || entry.state == State::kInvFilling ||
                         entry.state == State::kWaitChgOwnAck ||
                         entry.state == State::kWaitObjRmAck;
      owners += owner;
      writers += entry.writer;
      readers += entry.readers;
    }
    ASSERT_LE(owners, 1u) << trace();
    ASSERT_LE(writers, 1u) << trace();
    if (writers > 0) {
      ASSERT_EQ(readers, 0u) << "a reader beside a writer; " << trace();
    }
  }

  // Lets everything end; nothing may be left waiting.
  void drain() {
    draining_ = true;
    for (unsigned i = 0; i < 2'000'000; ++i) {
      bool busy = deliver_one();
      for (unsigned n = 0; n < options_.nodes; ++n) {
        for (unsigned o = 0; o < options_.objects; ++o)
          if (nodes_[n].alive && nodes_[n].objects[o].filling) {
            nodes_[n].objects[o].filling = false;
            nodes_[n].objects[o].data = 0;
            history_[o].exists = true;
            run_step(n, o, "filled",
                     [](Entry& e, const Place& p, Actions& a) { filled(e, p, true, a); });
            busy = true;
          }
        for (Thread& thread : nodes_[n].threads)
          if (thread.phase == Thread::kHolding) {
            release(n, thread);
            busy = true;
          }
      }
      if (!busy) break;
      if (::testing::Test::HasFatalFailure()) return;
    }
    for (Node& node : nodes_)
      for (Thread& thread : node.threads)
        ASSERT_EQ(thread.phase, Thread::kIdle) << "an operation on object " << thread.object
                                               << " hangs; " << states(thread.object) << trace();
    for (unsigned o = 0; o < options_.objects; ++o) {
      unsigned owners = 0;
      for (Node& node : nodes_) {
        if (!node.alive) continue;
        const State state = node.objects[o].entry.state;
        owners +=
            state == State::kInvOwner || state == State::kReadOwner || state == State::kWriteOwner;
      }
      ASSERT_EQ(owners, 1u) << trace();
    }
  }

  std::string states(unsigned object) const {
    std::string text;
    for (size_t n = 0; n < nodes_.size(); ++n) {
      const Entry& e = nodes_[n].objects[object].entry;
      text += "n" + std::to_string(n) + " " + std::string(name_of(e.state)) + " v" +
              std::to_string(e.version) + " waiting " + std::to_string(e.waiting.size()) +
              " requests " + std::to_string(e.requests.size()) + " acks " +
              std::to_string(e.acks_missing) + " readers " + std::to_string(e.readers) +
              (e.read_outstanding ? " R" : "") + (e.write_outstanding ? " W" : "") +
              (e.drop_when_unpinned ? " D" : "") + " removals " +
              std::to_string(e.removals.size()) + "; ";
    }
    return text;
  }
  std::string trace() const { return "replay with KRG_SIM_SEED=" + std::to_string(options_.seed); }

  SimOptions options_;
  std::mt19937_64 random_;
  Transitions* seen_;
  std::vector<Node> nodes_;
  std::vector<History> history_;
  std::map<std::pair<unsigned, unsigned>, std::deque<Wire>> network_;
  OpId next_op_ = 1;
  unsigned grants_ = 0;
  bool draining_ = false;
  bool recovering_ = false;
  unsigned readers_before_ = 0;  // of the step being carried out
  uint64_t arriving_ = 0;        // the bytes that came with the message being delivered
};

uint64_t first_seed() {
  const char* chosen = std::getenv("KRG_SIM_SEED");
  return chosen ? std::strtoull(chosen, nullptr, 10) : 1;
}
// KRG_SIM_RUNS multiplies the number of seeds.
unsigned seed_count(unsigned otherwise) {
  if (std::getenv("KRG_SIM_SEED")) return 1;
  const char* times = std::getenv("KRG_SIM_RUNS");
  return otherwise * (times ? static_cast<unsigned>(std::strtoul(times, nullptr, 10)) : 1);
}

TEST(KddmSimulation, EveryReadSeesTheNewestWrite) {
  for (uint64_t seed = first_seed(); seed < first_seed() + seed_count(60); ++seed) {
    SimOptions options;
    options.seed = seed;
    options.nodes = 2 + seed % 7;
    options.objects = 1 + seed % 3;
    options.threads_per_node = 1 + seed % 4;
    options.steps = 10'000;
    options.remove_percent = 0;
    SimCluster cluster(options, nullptr);
    cluster.run();
    if (HasFatalFailure()) return;
    EXPECT_GT(cluster.grants(), 100u);
  }
}

TEST(KddmSimulation, RemovalsNeverHangNorLeaveTwoOwners) {
  for (uint64_t seed = first_seed(); seed < first_seed() + seed_count(40); ++seed) {
    SimOptions options;
    options.seed = seed;
    options.nodes = 2 + seed % 5;
    options.steps = 10'000;
    options.remove_percent = 15;
    options.give_percent = 10;
    SimCluster cluster(options, nullptr);
    cluster.run();
    if (HasFatalFailure()) return;
  }
}

TEST(KddmSimulation, SurvivorsGoOnAndOnlyLostObjectsAreLost) {
  unsigned lost = 0;
  for (uint64_t seed = first_seed(); seed < first_seed() + seed_count(80); ++seed) {
    SimOptions options;
    options.seed = seed;
    options.nodes = 3 + seed % 6;
    options.objects = 4;
    options.threads_per_node = 1 + seed % 3;
    options.steps = 6'000;
    options.remove_percent = 0;
    options.kill_every_steps = 900;
    SimCluster cluster(options, nullptr);
    cluster.run();
    if (HasFatalFailure()) return;
    lost += cluster.lost_objects();
  }
  if (seed_count(80) > 1) {
    EXPECT_GT(lost, 10u) << "the runs include losses";
  }
}

TEST(KddmSimulation, RemovalsAndLossesNeverHang) {
  for (uint64_t seed = first_seed(); seed < first_seed() + seed_count(40); ++seed) {
    SimOptions options;
    options.seed = seed;
    options.nodes = 3 + seed % 6;
    options.steps = 6'000;
    options.remove_percent = 15;
    options.give_percent = 10;
    options.kill_every_steps = 900;
    SimCluster cluster(options, nullptr);
    cluster.run();
    if (HasFatalFailure()) return;
  }
}

TEST(KddmSimulation, ManyNodes) {
  SimOptions options;
  options.seed = first_seed();
  options.nodes = 200;
  options.objects = 4;
  options.threads_per_node = 1;
  options.steps = 20'000;
  options.remove_percent = 0;
  SimCluster cluster(options, nullptr);
  cluster.run();
}

// The rows of the table in shmem/README.md: | STATE | event | NEXT, NEXT |
std::set<std::string> documented_rows() {
  std::set<std::string> rows;
  std::ifstream readme(KRG_SHMEM_README);
  EXPECT_TRUE(readme) << KRG_SHMEM_README;
  bool in_table = false;
  for (std::string line; std::getline(readme, line);) {
    if (line.rfind("| state | event |", 0) == 0) in_table = true;
    if (in_table && line.empty()) break;
    if (in_table && line.rfind("| `", 0) == 0) rows.insert(line);
  }
  return rows;
}

std::set<std::string> observed_rows() {
  Transitions seen;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SimOptions options;
    options.seed = seed;
    options.nodes = 2 + seed % 6;
    options.threads_per_node = 1 + seed % 3;
    options.remove_percent = seed % 2 ? 12 : 2;
    options.give_percent = 10;
    options.drop_percent = 10;
    options.steps = 8'000;
    SimCluster(options, &seen).run();
    if (::testing::Test::HasFatalFailure()) return {};
  }
  std::set<std::string> rows;
  for (const auto& [from, targets] : seen) {
    if (targets == std::set{from.first}) continue;  // the table leaves out what changes nothing
    std::string row = "| `" + std::string(name_of(from.first)) + "` | " + from.second + " | ";
    const char* separator = "";
    for (State to : targets) {
      row += separator + ("`" + std::string(name_of(to)) + "`");
      separator = ", ";
    }
    rows.insert(row + " |");
  }
  return rows;
}

// Each transition that the protocol takes stands in the README, and each that stands there is
// taken.
TEST(KddmSimulation, TheTableInTheReadmeIsTheProtocol) {
  const auto documented = documented_rows(), observed = observed_rows();
  for (const std::string& row : observed)
    EXPECT_TRUE(documented.count(row)) << "not in shmem/README.md: " << row;
  for (const std::string& row : documented)
    EXPECT_TRUE(observed.count(row)) << "the protocol does not do: " << row;
}

}  // namespace
}  // namespace krg::kddm
