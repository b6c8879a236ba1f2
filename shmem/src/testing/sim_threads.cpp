// What nodes and threads do by themselves in the simulator, and what their operations must see.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <algorithm>
#include <utility>

#include "sim_cluster.h"

namespace krg::kddm {
namespace {

constexpr unsigned kMostPins = 2;
constexpr unsigned kNoFirstTouchPercent = 10;
constexpr unsigned kEvictPercent = 50;  // of a full node's steps

constexpr unsigned event_of(LocalEvent event) {
  return kMessageTypeCount + static_cast<unsigned>(event);
}

}  // namespace

void SimCluster::local_step() {
  const unsigned node = pick(options_.nodes);
  if (!nodes_[node].alive) return;
  const unsigned object = pick(options_.objects);
  if (nodes_[node].objects[object].filling) return fill(node, object);
  if (options_.memory_limit > 0 && nodes_[node].held > options_.memory_limit &&
      chance(kEvictPercent)) {
    evict_from(node);
    return;
  }
  if (chance(options_.give_percent)) {
    const NodeId target{static_cast<uint16_t>(pick(options_.nodes))};
    if (!nodes_[target.value].alive) return;
    return run_step(node, object, event_of(LocalEvent::kGive),
                    [&](Entry& e, const Place& p, Actions& a) { give(e, p, target, a); });
  }
  if (chance(options_.drop_percent))
    return run_step(node, object, event_of(LocalEvent::kDrop),
                    [](Entry& e, const Place&, Actions& a) { drop_copy(e, a); });
  if (chance(options_.prefetch_percent)) return prefetch_run(node, object);
  thread_step(node, pick(options_.threads_per_node));
}

void SimCluster::prefetch_run(unsigned node, unsigned first) {
  const unsigned end = first + 1 + pick(options_.objects - first);
  for (unsigned object = first; object < end; ++object)
    run_step(node, object, event_of(LocalEvent::kPrefetch),
             [](Entry& e, const Place& p, Actions& a) { prefetch(e, p, a); });
}

// Takes one object out of a node's memory: a copy by dropping it, the object itself by giving it to
// a node that has room. Returns whether one was found.
bool SimCluster::evict_from(unsigned node) {
  const unsigned first = pick(options_.objects);
  for (unsigned i = 0; i < options_.objects; ++i) {
    const unsigned object = (first + i) % options_.objects;
    const Entry& entry = nodes_[node].objects[object].entry;
    if (!entry.has_data || entry.readers > 0 || entry.writer) continue;
    ++evictions_;
    if (entry.state == State::kReadCopy) {
      run_step(node, object, event_of(LocalEvent::kDrop),
               [](Entry& e, const Place&, Actions& a) { drop_copy(e, a); });
      return true;
    }
    unsigned target = pick(options_.nodes);
    for (unsigned n = 0; n < options_.nodes; ++n, target = (target + 1) % options_.nodes)
      if (nodes_[target].alive && target != node && nodes_[target].held < options_.memory_limit)
        break;
    if (!nodes_[target].alive) return true;
    run_step(node, object, event_of(LocalEvent::kGive), [&](Entry& e, const Place& p, Actions& a) {
      give(e, p, NodeId{static_cast<uint16_t>(target)}, a);
    });
    return true;
  }
  return false;
}

// The IO linker has made the object.
void SimCluster::fill(unsigned node, unsigned object) {
  Object& at = nodes_[node].objects[object];
  History& history = history_[object];
  at.filling = false;
  at.data = history.written = history.writing = history.next++;
  history.exists = true;
  accesses_.begin_object(object, at.data);
  run_step(node, object, event_of(LocalEvent::kFilled),
           [](Entry& e, const Place& p, Actions& a) { filled(e, p, true, a); });
}

void SimCluster::thread_step(unsigned node, unsigned index) {
  Thread& thread = nodes_[node].threads[index];
  if (thread.waiting) return;
  if (thread.pins.empty()) {
    if (!draining_) start(node, index, pick(options_.objects));
    return;
  }
  // A second object is always one with a higher number: so that nobody waits in a circle.
  const unsigned above = thread.pins.back().object + 1;
  if (!draining_ && thread.pins.size() < kMostPins && above < options_.objects &&
      chance(options_.nest_percent))
    return start(node, index, above + pick(options_.objects - above));
  release(node, thread);
}

void SimCluster::start(unsigned node, unsigned index, unsigned object) {
  Thread& thread = nodes_[node].threads[index];
  History& history = history_[object];
  thread.waiting = true;
  thread.object = object;
  thread.removing = chance(options_.remove_percent);
  thread.seen_before = std::max(history.written, history.dead_below);
  thread.written_before = history.written;
  thread.must_exist = history.exists && history.removals_pending == 0;
  thread.removals_seen = history.removals_begun;
  thread.losses_seen = history.losses - (history.lost ? 1 : 0);
  const OpId op = next_op_++;
  nodes_[node].objects[object].waiting.emplace(op, index);
  if (thread.removing) {
    ++history.removals_begun;
    ++history.removals_pending;
    return run_step(node, object, event_of(LocalEvent::kRemove),
                    [&](Entry& e, const Place& p, Actions& a) { remove(e, p, op, a); });
  }
  const bool first_touch = !chance(kNoFirstTouchPercent);
  thread.kind = chance(options_.grab_percent) ? OpKind::kGrab : OpKind::kGet;
  if (thread.kind == OpKind::kGet)
    return run_step(node, object, event_of(LocalEvent::kGet),
                    [&](Entry& e, const Place& p, Actions& a) { get(e, p, op, first_touch, a); });
  run_step(node, object, event_of(LocalEvent::kGrab),
           [&](Entry& e, const Place& p, Actions& a) { grab(e, p, op, first_touch, a); });
}

void SimCluster::completed(unsigned node, unsigned object, OpId op, Outcome outcome) {
  auto& waiting = nodes_[node].objects[object].waiting;
  auto found = waiting.find(op);
  if (!expect(found != waiting.end(), "an operation ends twice", object)) return;
  const unsigned index = found->second;
  waiting.erase(found);
  Thread& thread = nodes_[node].threads[index];
  thread.waiting = false;
  ++grants_;
  if (!expect((outcome == Outcome::kRemoved) == thread.removing,
              "a removal, and nothing else, ends as one", object))
    return;
  if (outcome == Outcome::kRemoved) {
    History& history = history_[object];
    --history.removals_pending;
    history.dead_below = std::max(history.dead_below, thread.written_before + 1);
  } else if (outcome == Outcome::kGranted) {
    check_granted(node, object, index);
  } else {
    check_missing(thread, object, outcome);
  }
}

void SimCluster::check_granted(unsigned node, unsigned object, unsigned index) {
  Thread& thread = nodes_[node].threads[index];
  History& history = history_[object];
  uint64_t& data = nodes_[node].objects[object].data;
  const uint64_t read = data;
  expect(!history.lost, "a lost object is granted", object);
  expect(read >= thread.seen_before, "a read goes back in time", object);
  expect(read <= history.writing, "a read sees the future", object);
  if (thread.kind == OpKind::kGrab) {
    expect(read == history.written, "a write was lost", object);
    data = history.writing = history.next++;
  }
  accesses_.record({node * options_.threads_per_node + index, object, read,
                    thread.kind == OpKind::kGrab ? data : AccessHistory::kNothing});
  thread.pins.push_back({object, thread.kind, data, history.losses});
}

void SimCluster::check_missing(Thread& thread, unsigned object, Outcome outcome) {
  const History& history = history_[object];
  if (outcome == Outcome::kLost) {
    expect(history.losses > thread.losses_seen, "an object is called lost that is not", object);
  } else {
    expect(!thread.must_exist || history.removals_begun > thread.removals_seen,
           "an object is called missing that is there", object);
  }
}

// Puts the thread's newest pin.
void SimCluster::release(unsigned node, Thread& thread) {
  const Pin pin = thread.pins.back();
  thread.pins.pop_back();
  Object& at = nodes_[node].objects[pin.object];
  History& history = history_[pin.object];
  if (pin.losses == history.losses) {
    if (!expect(at.data == pin.data, "the bytes changed under a pin", pin.object)) return;
    if (pin.kind == OpKind::kGrab) {
      history.written = pin.data;
    } else {
      // The thread reads once more: what others wrote since it began must not have been seen.
      const auto index = static_cast<unsigned>(&thread - nodes_[node].threads.data());
      accesses_.record(
          {node * options_.threads_per_node + index, pin.object, at.data, AccessHistory::kNothing});
    }
  }
  run_step(node, pin.object, event_of(LocalEvent::kPut),
           [&](Entry& e, const Place& p, Actions& a) { put(e, p, pin.kind, a); });
}

}  // namespace krg::kddm
