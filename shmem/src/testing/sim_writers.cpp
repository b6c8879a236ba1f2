// SPDX-License-Identifier: GPL-2.0-or-later
#include "testing/sim_writers.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "krg/runtime/check.h"

namespace krg {
namespace {

constexpr SetId kSet{31};
constexpr std::chrono::seconds kPatience{30};
constexpr unsigned kTries = 40;  // to find a byte
constexpr unsigned kPlaces = 4;  // in the program, that phases come back to

// What page sets tell each other.
struct TellWriters {
  static constexpr uint16_t kId = 230;
  uint8_t version = 1;
};
// What threads' synchronisation needs.
struct TellCall {
  static constexpr uint16_t kId = 231;
  uint8_t version = 1;
  uint8_t call = 0;
  uint16_t number = 0;
  uint32_t value = 0;
};

}  // namespace

SimWriters::SimWriters(const Options& options)
    : options_(options),
      random_(options.seed),
      loop_(std::move(*EventLoop::create())),
      memory_(options.pages * kPageBytes),
      locks_(kLocks) {
  fabric_ = std::make_unique<LoopbackFabric>(
      loop_, LoopbackFabric::Options{.nodes = options.nodes, .seed = options.seed});
  for (unsigned node = 0; node < options.nodes; ++node) open_node(node);
  for (unsigned i = 0; i < options.nodes * options.threads_per_node; ++i)
    threads_.push_back({.number = i, .node = i / options.threads_per_node});
}

SimWriters::~SimWriters() {
  for (auto& node : nodes_) node->programs->run_some = {};
  for (auto& node : nodes_) node->pages.reset();
}

void SimWriters::open_node(unsigned number) {
  Node& node = *nodes_.emplace_back(std::make_unique<Node>());
  const NodeId self{static_cast<uint16_t>(number)};
  node.messenger = std::make_unique<Messenger>(fabric_->node(self));
  node.kddm = std::make_unique<Kddm>(*node.messenger);
  node.programs = std::make_shared<SimPrograms>(options_.pages, number * options_.threads_per_node,
                                                options_.threads_per_node, random_);
  node.programs->atomic_one_in = options_.atomic_one_in;
  node.programs->runs_one_in = options_.runs_one_in;
  node.programs->run_some = [this, number] { run_some(number); };
  auto pages = PageSet::create(loop_, *node.kddm, kSet, options_.pages,
                               {.group = node.programs,
                                .home = NodeId{0},
                                .hold_time = std::chrono::microseconds(0),
                                .writes_ahead = false});
  check(pages.has_value(), "a page set can be opened");
  node.pages = std::move(*pages);
  MultipleWritersOptions writers;
  writers.self = self;
  writers.home = NodeId{0};
  for (unsigned other = 1; number == 0 && other < options_.nodes; ++other)
    writers.others.push_back(NodeId{static_cast<uint16_t>(other)});
  writers.asks_home = options_.nodes > 2;
  writers.send = [this, number](NodeId to, const std::string& message) {
    run_some(number);
    static_cast<void>(nodes_[number]->messenger->send(to, TellWriters{}, message));
  };
  writers.allows = [last = options_.pages - 1](RemoteAddr at) {
    return SimPrograms::page_at(at).value != last;
  };
  node.pages->allow_multiple_writers(std::move(writers));
  node.messenger->on<TellWriters>(
      [this, number](NodeId from, const TellWriters&, std::string_view message) {
        nodes_[number]->pages->take_writers_message(from, message);
      });
  node.messenger->on<TellCall>([this, number](NodeId from, const TellCall& told, std::string_view) {
    take(from.value, number, static_cast<Call>(told.call), told.number, told.value);
  });
}

void SimWriters::fail(std::string why) {
  if (failure_.empty()) failure_ = std::move(why);
}

// --- what threads do ----------------------------------------------------------------------------

// Runs of bytes are dealt out to the threads, some to nobody; how long they are, and whose is the
// first one, changes from phase to phase.
std::optional<unsigned> SimWriters::owner_of(size_t at, unsigned phase) const {
  constexpr size_t kRuns[] = {1, 4, 8, 64, 700, 3000};
  std::mt19937_64 draw(options_.seed * 1000003 + phase);
  const size_t run = kRuns[draw() % std::size(kRuns)];
  const size_t shares = threads_.size() + 1 + draw() % 3;
  const size_t share = (at / run + draw()) % shares;
  if (share >= threads_.size()) return std::nullopt;
  return static_cast<unsigned>(share);
}

void SimWriters::begin_phase(Thread& thread) {
  thread.left = options_.touches / 2 + pick(options_.touches);
  thread.doing = Doing::kTouches;
  thread.post = Post::kNone;
  PageSet& pages = *nodes_[thread.node]->pages;
  pages.begin_phase(static_cast<pid_t>(thread.number), 1 + thread.phase % kPlaces);
  if (options_.visit_one_in > 0 && pick(options_.visit_one_in) == 0)
    pages.visit(
        {pick(options_.pages)}, 1, [](PageIndex, std::span<const std::byte>) {},
        [](const Status&) {});
}

// None: it found nothing that it may touch.
std::optional<SimWriters::Touch> SimWriters::next_touch(Thread& thread) {
  if (thread.doing == Doing::kHasLock) {
    const size_t page = pick((options_.pages - 1) / kLocks) * kLocks + thread.lock;
    const size_t byte = kPageBytes - kGuarded + pick(kGuarded);
    return Touch{page * kPageBytes + byte, pick(2) == 0};
  }
  if (auto flag = next_of_flags(thread)) return flag;
  if (thread.sweep == 0 && pick(16) == 0) thread.sweep = 1;
  // Few pages are in use in some phases: the others fall still.
  const size_t used = thread.phase / 8 % 2 == 0 ? options_.pages - 1 : options_.pages / 3;
  for (unsigned tries = 0; tries < kTries; ++tries) {
    const size_t page = thread.sweep > 0 ? thread.sweep - 1 : pick(used);
    const size_t at = page * kPageBytes + pick(kPageBytes - kGuarded);
    const auto owner = owner_of(at, thread.phase);
    if (owner && *owner != thread.number) continue;
    if (thread.post != Post::kNone && at == thread.posted) continue;
    const bool is_sweep = thread.sweep > 0;
    if (is_sweep && thread.sweep++ == options_.pages - 1) thread.sweep = 0;
    const bool write = owner.has_value() && !is_sweep && pick(3) > 0;
    if (write && thread.post == Post::kNone && pick(4) == 0) {
      thread.post = Post::kWritten;
      thread.posted = at;
    }
    return Touch{at, write};
  }
  thread.sweep = 0;
  return std::nullopt;
}

// Its own, behind what it tells, or another's.
std::optional<SimWriters::Touch> SimWriters::next_of_flags(Thread& thread) {
  if (thread.post == Post::kWritten) return Touch{flag_at(thread.number), true, thread.number};
  if (thread.sweep > 0 || pick(5) > 0) return std::nullopt;
  const unsigned other = pick(threads_.size());
  return Touch{flag_at(other), false, other};
}

void SimWriters::saw_flag(Thread& thread, unsigned of, unsigned value) {
  const Thread& other = threads_[of];
  const bool is_told = value == thread.phase + 1 && other.phase == thread.phase;
  if (is_told && other.post == Post::kFlagged) thread.touch = Touch{other.posted, false};
}

void SimWriters::carry_out(Thread& thread, const Touch& touch, std::byte* there) {
  if (touch.flag_of) {
    if (!touch.write) return saw_flag(thread, *touch.flag_of, std::to_integer<unsigned>(*there));
    *there = static_cast<std::byte>(thread.phase + 1);
    thread.post = Post::kFlagged;
    return;
  }
  if (touch.write) {
    *there = std::byte{memory_[touch.at] = ++next_value_};
    return;
  }
  const auto found = std::to_integer<unsigned>(*there);
  if (found == memory_[touch.at]) return;
  fail(fmt::format("thread {} of node {} in phase {}: byte {} of page {} is {}, not {}",
                   thread.number, thread.node, thread.phase, touch.at % kPageBytes,
                   touch.at / kPageBytes, found, memory_[touch.at]));
}

bool SimWriters::step_memory(Thread& thread) {
  SimPrograms& programs = *nodes_[thread.node]->programs;
  if (programs.is_waiting(thread.number)) return false;
  if (!thread.touch) {
    unsigned& left = thread.doing == Doing::kHasLock ? thread.locked : thread.left;
    const bool touches = thread.doing == Doing::kTouches || thread.doing == Doing::kHasLock;
    if (!touches || left == 0) return false;
    --left;
    thread.touch = next_touch(thread);
    if (!thread.touch) return true;
  }
  const Touch touch = *thread.touch;
  std::byte* there =
      programs.touch(thread.number, {touch.at / kPageBytes}, touch.at % kPageBytes, touch.write);
  if (!there) return true;
  thread.touch.reset();
  carry_out(thread, touch, there);
  return true;
}

bool SimWriters::step(Thread& thread) {
  if (step_memory(thread)) return true;
  if (thread.touch) return false;
  if (thread.doing == Doing::kHasLock) {
    thread.doing = Doing::kTouches;
    tell(thread.node, 0, Call::kUnlock, thread.number, thread.lock);
  } else if (thread.doing != Doing::kTouches) {
    return false;
  } else if (pick(3) == 0) {
    thread.doing = Doing::kAsksLock;
    thread.lock = pick(kLocks);
    tell(thread.node, 0, Call::kLock, thread.number, thread.lock);
  } else {
    arrive(thread);
  }
  return true;
}

// Threads run while krgd does something; what they touch is all that they do then.
void SimWriters::run_some(unsigned node) {
  if (is_meanwhile_) return;
  is_meanwhile_ = true;
  for (unsigned i = pick(3); i > 0; --i)
    step_memory(threads_[node * options_.threads_per_node + pick(options_.threads_per_node)]);
  is_meanwhile_ = false;
}

void SimWriters::turn() {
  for (unsigned i = pick(4); i > 0; --i) step(threads_[pick(threads_.size())]);
  if (Node& node = *nodes_[pick(nodes_.size())]; pick(2) == 0 && node.programs->has_faults())
    node.programs->tell_faults();
  loop_.run_once(std::chrono::microseconds(0));
}

bool SimWriters::until(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!done()) {
    if (!failure_.empty()) return false;
    if (std::chrono::steady_clock::now() > deadline) {
      fail("nothing more happens");
      return false;
    }
    turn();
  }
  return failure_.empty();
}

bool SimWriters::run() {
  for (Thread& thread : threads_) begin_phase(thread);
  return until([this] {
    return std::all_of(threads_.begin(), threads_.end(),
                       [](const Thread& thread) { return thread.doing == Doing::kEnded; });
  });
}

// --- barriers and locks -------------------------------------------------------------------------

void SimWriters::tell(unsigned from, unsigned to, Call call, unsigned number, unsigned value) {
  if (from == to) return take(from, to, call, number, value);
  nodes_[from]->pages->publish(NodeId{static_cast<uint16_t>(to)});
  TellCall message;
  message.call = static_cast<uint8_t>(call);
  message.number = static_cast<uint16_t>(number);
  message.value = value;
  static_cast<void>(nodes_[from]->messenger->send(NodeId{static_cast<uint16_t>(to)}, message, {}));
}

void SimWriters::take(unsigned from, unsigned at, Call call, unsigned number, unsigned value) {
  switch (call) {
    case Call::kLock:
      locks_[value].waiters.push_back(number);
      return grant(value);
    case Call::kUnlock:
      locks_[value].holder.reset();
      return grant(value);
    case Call::kGranted:
      threads_[number].doing = Doing::kHasLock;
      threads_[number].locked = 1 + pick(4);
      return;
    case Call::kArrived:
      return has_arrived(from, value);
    case Call::kGo:
      return go(at, value);
  }
}

void SimWriters::grant(unsigned number) {
  Lock& lock = locks_[number];
  if (lock.holder || lock.waiters.empty()) return;
  lock.holder = lock.waiters.front();
  lock.waiters.pop_front();
  tell(0, threads_[*lock.holder].node, Call::kGranted, *lock.holder, number);
}

void SimWriters::arrive(Thread& thread) {
  Node& node = *nodes_[thread.node];
  thread.doing = Doing::kAtBarrier;
  node.pages->waits(static_cast<pid_t>(thread.number));
  if (thread.node != 0) node.pages->publish(NodeId{0});
  if (++node.arrived < options_.threads_per_node) return;
  const bool passes = node.may_pass == thread.phase;
  tell(thread.node, 0, Call::kArrived, 0, thread.phase);
  if (passes) pass(thread.node);
}

// Home: the last node that is missing need not wait for the answer.
void SimWriters::has_arrived(unsigned node, unsigned phase) {
  at_barrier_.insert(node);
  const size_t missing = nodes_.size() - at_barrier_.size();
  if (missing == 1) {
    unsigned last = 0;
    while (at_barrier_.contains(last)) ++last;
    if (last == 0) return;
    told_ = last;
    return tell(0, last, Call::kGo, 0, phase);
  }
  if (missing > 0) return;
  at_barrier_.clear();
  const auto told = std::exchange(told_, std::nullopt);
  for (unsigned other = 1; other < nodes_.size(); ++other)
    if (told != other) tell(0, other, Call::kGo, 0, phase);
  pass(0);
}

void SimWriters::go(unsigned node, unsigned phase) {
  const Thread& first = threads_[node * options_.threads_per_node];
  const bool is_there = nodes_[node]->arrived == options_.threads_per_node && first.phase == phase;
  if (is_there) return pass(node);
  nodes_[node]->may_pass = phase;
}

void SimWriters::pass(unsigned number) {
  nodes_[number]->arrived = 0;
  for (unsigned i = 0; i < options_.threads_per_node; ++i) {
    Thread& thread = threads_[number * options_.threads_per_node + i];
    if (++thread.phase == options_.phases)
      thread.doing = Doing::kEnded;
    else
      begin_phase(thread);
  }
}

// --- directed tests -----------------------------------------------------------------------------

void SimWriters::start_write(unsigned thread, size_t at) {
  threads_[thread].touch = Touch{at, true};
  step_memory(threads_[thread]);
}

void SimWriters::write(unsigned thread, size_t at) {
  start_write(thread, at);
  until([&] { return !threads_[thread].touch.has_value(); });
}

void SimWriters::read(unsigned thread, size_t at) {
  threads_[thread].touch = Touch{at, false};
  until([&] { return !threads_[thread].touch.has_value(); });
}

void SimWriters::synchronise() {
  for (unsigned node = 1; node < nodes_.size(); ++node) nodes_[node]->pages->publish(NodeId{0});
  settle();
  for (unsigned node = 1; node < nodes_.size(); ++node)
    nodes_[0]->pages->publish(NodeId{static_cast<uint16_t>(node)});
  settle();
}

// All messages arrive.
void SimWriters::settle() {
  constexpr unsigned kTurns = 200;
  for (unsigned i = 0; i < kTurns; ++i) {
    for (auto& node : nodes_)
      if (node->programs->has_faults()) node->programs->tell_faults();
    loop_.run_once(std::chrono::microseconds(0));
  }
}

}  // namespace krg
