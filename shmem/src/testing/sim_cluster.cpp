// The simulator's steps: what happens next, on which node, and what comes of it.
// SPDX-License-Identifier: GPL-2.0-or-later
#include "sim_cluster.h"

#include <utility>

namespace krg::kddm {
namespace {

constexpr unsigned kStepsBetweenFullChecks = 4096;
constexpr unsigned kRunPercent = 50;
constexpr unsigned kSettlingRounds = 10'000;

NodeId node_id(unsigned node) {
  return NodeId{static_cast<uint16_t>(node)};
}
bool is_undirected_request(const Message& message) {
  const MessageType type = message.type;
  return !message.directed &&
         (type == MessageType::kReadRequest || type == MessageType::kWriteRequest ||
          type == MessageType::kRemoveRequest || type == MessageType::kGiveRequest);
}
unsigned event_of(MessageType type) {
  return static_cast<unsigned>(type);
}
unsigned event_of(LocalEvent event) {
  return kMessageTypeCount + static_cast<unsigned>(event);
}

}  // namespace

std::string_view name_of_event(unsigned event) {
  static constexpr std::array<std::string_view, kEventCount - kMessageTypeCount> kNames = {
      "get", "grab", "put", "remove", "give", "drop", "filled", "recover", "prefetch"};
  return event < kMessageTypeCount ? name_of(static_cast<MessageType>(event))
                                   : kNames[event - kMessageTypeCount];
}

SimCluster::SimCluster(const SimOptions& options)
    : options_(options),
      random_(options.seed),
      faults_(options.fault, options.seed),
      network_(random_),
      tallies_(options.objects),
      history_(options.objects) {
  if (options.fault == Fault::kReorderPair) network_.break_order();
  nodes_.resize(options.nodes);
  for (unsigned n = 0; n < options.nodes; ++n) {
    for (unsigned o = 0; o < options.objects; ++o) {
      nodes_[n].objects.push_back({initial_entry(place(n, o)), {manager(o), 0}, 0, false, {}});
      tallies_[o].owners += tally_of(nodes_[n].objects[o].entry).owners;
    }
    nodes_[n].threads.resize(options.threads_per_node);
  }
}

unsigned SimCluster::lost_objects() const {
  unsigned lost = 0;
  for (const History& history : history_) lost += history.losses > 0;
  return lost;
}

// The first living node from the object's place in the ring.
NodeId SimCluster::manager(unsigned object) const {
  unsigned node = object % options_.nodes;
  while (!nodes_[node].alive) node = (node + 1) % options_.nodes;
  return node_id(node);
}

Place SimCluster::place(unsigned node, unsigned object) const {
  return {node_id(node), manager(object)};
}

bool SimCluster::run() {
  for (unsigned i = 0; i < options_.steps && failure_.empty(); ++i) {
    const unsigned kill_every = options_.kill_every_steps;
    if (kill_every > 0 && i > 0 && i % kill_every == 0) kill_one();
    if (i % kStepsBetweenFullChecks == 0)
      for (unsigned o = 0; o < options_.objects; ++o) check_entries(o);
    step();
  }
  if (failure_.empty()) drain();
  if (failure_.empty() && options_.memory_limit > 0) settle_memory();
  if (failure_.empty()) check_end();
  return failure_.empty();
}

void SimCluster::step() {
  if (pick(3) == 0 || !deliver_one()) local_step();
}

bool SimCluster::deliver_one() {
  auto packet = network_.take();
  if (!packet) return false;
  if (faults_.strikes(Fault::kDuplicate)) network_.send(*packet);
  deliver(*packet);
  if (chance(kRunPercent)) deliver_rest_of_run(std::move(*packet));
  return true;
}

// Nothing comes between the messages of a run.
void SimCluster::deliver_rest_of_run(SimNetwork::Packet packet) {
  while (failure_.empty()) {
    auto next = network_.take_rest_of_run(packet);
    if (!next) return;
    if (faults_.strikes(Fault::kShiftRun)) next->data = packet.data;
    deliver(*next);
    packet = std::move(*next);
  }
}

void SimCluster::deliver(SimNetwork::Packet& packet) {
  Object& at = nodes_[packet.to].objects[packet.object];
  if (is_undirected_request(packet.message)) {
    if (recovering_) return;  // everybody asks again after recovery
    Actions actions;
    const DirectoryEntry before = at.directory;
    direct(at.directory, node_id(packet.from), packet.message, actions);
    faults_.change_direction(before, at.directory, actions);
    return perform(packet.to, packet.object, actions);
  }
  arriving_ = packet.data;
  run_step(packet.to, packet.object, event_of(packet.message.type),
           [&](Entry& e, const Place& p, Actions& a) {
             if (!faults_.replace_receive(e, packet.message, a)) receive(e, p, packet.message, a);
           });
}

// Runs one protocol call on an entry, notes what it changed, and carries its actions out.
void SimCluster::run_step(unsigned node, unsigned object, unsigned event, const Call& call) {
  Object& at = nodes_[node].objects[object];
  const State before = at.entry.state;
  const Tally share = tally_of(at.entry);
  const bool held = at.entry.has_data;
  Actions actions;
  call(at.entry, place(node, object), actions);
  faults_.change_step(at.entry, actions);
  ++steps_run_;
  seen_[static_cast<size_t>(before)][event] |=
      static_cast<uint16_t>(1u << static_cast<unsigned>(at.entry.state));
  const Tally now = tally_of(at.entry);
  tallies_[object].owners += now.owners - share.owners;
  tallies_[object].writers += now.writers - share.writers;
  tallies_[object].readers += now.readers - share.readers;
  nodes_[node].held += static_cast<unsigned>(at.entry.has_data) - static_cast<unsigned>(held);
  perform(node, object, actions);
  for (uint64_t fact : {uint64_t{node}, uint64_t{object}, uint64_t{event},
                        static_cast<uint64_t>(at.entry.state), at.data})
    digest_ = (digest_ ^ fact) * 0x100000001b3ull;
  check_step(object);
}

void SimCluster::perform(unsigned node, unsigned object, Actions& actions) {
  Object& at = nodes_[node].objects[object];
  for (Action& action : actions) {
    switch (action.kind) {
      case Action::Kind::kSend:
        send(node, object, action);
        break;
      case Action::Kind::kComplete:
        completed(node, object, action.op, action.outcome);
        break;
      case Action::Kind::kFirstTouch:
        at.filling = true;
        break;
      case Action::Kind::kInstall:
        at.data = arriving_;
        break;
      case Action::Kind::kDropData:
        at.data = 0;
        break;
      case Action::Kind::kRemoved:
        history_[object].exists = history_[object].lost = false;
        break;
    }
  }
}

void SimCluster::send(unsigned node, unsigned object, Action& action) {
  if (!nodes_[action.to.value].alive) return;
  const uint64_t data = faults_.change_bytes(action.message, nodes_[node].objects[object].data);
  network_.send({node, action.to.value, object, std::move(action.message), data});
}

// A node dies with all that it has. What it sent arrives up to a point; then the survivors, who
// have heard all that they had sent each other, recover every object.
void SimCluster::kill_one() {
  const unsigned victim = pick(options_.nodes);
  unsigned living = 0;
  for (const Node& node : nodes_) living += node.alive;
  if (living <= 2 || !nodes_[victim].alive) return;
  for (unsigned n = pick(20); n > 0; --n) deliver_one();
  nodes_[victim].alive = false;
  network_.lose_node(victim);
  recovering_ = true;
  while (failure_.empty() && deliver_one()) {
  }
  for (Thread& thread : nodes_[victim].threads) thread = {};
  for (unsigned o = 0; o < options_.objects && failure_.empty(); ++o) {
    const Tally gone = tally_of(nodes_[victim].objects[o].entry);
    tallies_[o].owners -= gone.owners;
    tallies_[o].writers -= gone.writers;
    tallies_[o].readers -= gone.readers;
    recover_object(o);
  }
  recovering_ = false;
}

void SimCluster::recover_object(unsigned object) {
  std::vector<Report> reports;
  for (unsigned n = 0; n < options_.nodes; ++n)
    if (nodes_[n].alive)
      reports.push_back(report(nodes_[n].objects[object].entry, place(n, object)));
  const NodeId head = manager(object);
  History& history = history_[object];
  const Decision decision = decide(reports, head, history.exists);
  for (Node& node : nodes_) node.objects[object].directory = {decision.owner, 0};
  history.losses += decision.lost && !history.lost;
  history.lost = decision.lost;
  for (unsigned n = 0; n < options_.nodes; ++n)
    if (nodes_[n].alive)
      run_step(n, object, event_of(LocalEvent::kRecover),
               [&](Entry& e, const Place& p, Actions& a) { recover(e, p, decision, a); });
}

// Lets everything end; nothing may be left waiting.
void SimCluster::drain() {
  draining_ = true;
  do {
    while (failure_.empty() && deliver_one()) {
    }
  } while (failure_.empty() && finish_local_work());
}

// Fills what is asked for and puts what threads hold. Returns whether there was anything.
bool SimCluster::finish_local_work() {
  bool busy = false;
  for (unsigned n = 0; n < options_.nodes; ++n) {
    if (!nodes_[n].alive) continue;
    for (unsigned o = 0; o < options_.objects; ++o)
      if (nodes_[n].objects[o].filling) {
        fill(n, o);
        busy = true;
      }
    for (Thread& thread : nodes_[n].threads)
      while (!thread.waiting && !thread.pins.empty() && failure_.empty()) {
        release(n, thread);
        busy = true;
      }
  }
  return busy;
}

// Without traffic, every node gets below its limit by eviction alone.
void SimCluster::settle_memory() {
  for (unsigned round = 0; round < kSettlingRounds && failure_.empty(); ++round) {
    bool over = false;
    for (unsigned n = 0; n < options_.nodes; ++n)
      if (nodes_[n].alive && nodes_[n].held > options_.memory_limit) over |= evict_from(n);
    while (failure_.empty() && deliver_one()) {
    }
    if (!over) return;
  }
  expect(false, "eviction does not come to an end", 0);
}

}  // namespace krg::kddm
