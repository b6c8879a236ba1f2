// SimWriters: nodes whose programs write the same pages between synchronisations, with the real
// page sets, protocol and changes over simulated programs (sim_programs.h) and a network that
// delays and lets messages of different pairs overtake each other. Node 0 is the home, and keeps
// barriers and locks as procmgr does: a node publishes before it says anything, home before it
// answers; the last node of a barrier is let go before it has come.
//
// Threads write bytes that are theirs in a phase (between two barriers) or that a lock guards, and
// read those and what nobody writes in that phase; and what another one has written last before it
// set its flag, a byte of the last page, which has one writer: each read is held to a reference
// memory.
//
// Owned by a test; one thread. The seed decides all but when holds of pages end.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "krg/runtime/event_loop.h"
#include "krg/runtime/loopback_transport.h"
#include "krg/runtime/messenger.h"
#include "krg/shmem/kddm.h"
#include "krg/shmem/page_set.h"
#include "testing/sim_programs.h"

namespace krg {

class SimWriters {
 public:
  struct Options {
    uint64_t seed = 1;
    unsigned nodes = 2, threads_per_node = 3;
    size_t pages = 12;
    unsigned phases = 60;
    unsigned touches = 24;                        // of a thread, in a phase
    unsigned atomic_one_in = 0, runs_one_in = 0;  // sim_programs.h
    unsigned visit_one_in = 0;  // of so many phases' beginnings krgd uses a page in one
  };
  explicit SimWriters(const Options& options);
  ~SimWriters();

  // False: failure() says what went wrong.
  bool run();
  const std::string& failure() const { return failure_; }
  MultipleWritersStatistics statistics() const { return nodes_[0]->pages->multiple_writers(); }

  // For directed tests, instead of run(): the thread touches a byte and waits until it has.
  void write(unsigned thread, size_t at);
  void start_write(unsigned thread, size_t at);  // does not wait
  // It does so while this node's krgd changes a page table or sends something.
  void write_meanwhile(unsigned thread, size_t at) { threads_[thread].touch = Touch{at, true}; }
  bool is_writing(unsigned thread) const { return threads_[thread].touch.has_value(); }
  void read(unsigned thread, size_t at);
  // All that was written before is known to all afterwards.
  void synchronise();
  PageSet& pages(unsigned node) { return *nodes_[node]->pages; }
  void settle();
  void turn();

 private:
  static constexpr size_t kGuarded = 256;  // bytes at a page's end, by its lock
  static constexpr unsigned kLocks = 3;
  enum class Doing : uint8_t { kTouches, kAsksLock, kHasLock, kAtBarrier, kEnded };
  struct Touch {
    size_t at;
    bool write;
    std::optional<unsigned> flag_of = {};  // a thread
  };
  enum class Post : uint8_t { kNone, kWritten, kFlagged };
  struct Thread {
    unsigned number, node;
    Doing doing = Doing::kEnded;
    unsigned phase = 0, left = 0;
    unsigned lock = 0, locked = 0;  // locked: touches that are left
    size_t sweep = 0;               // the next page of one
    std::optional<Touch> touch = {};
    // What it tells others by its flag in this phase: the byte there.
    Post post = Post::kNone;
    size_t posted = 0;
  };
  struct Node {
    std::unique_ptr<Messenger> messenger;
    std::unique_ptr<Kddm> kddm;
    std::shared_ptr<SimPrograms> programs;
    std::unique_ptr<PageSet> pages;
    unsigned arrived = 0;
    std::optional<unsigned> may_pass = {};  // the barrier behind this phase
  };
  enum class Call : uint8_t { kLock, kUnlock, kArrived, kGranted, kGo };

  void open_node(unsigned number);
  void begin_phase(Thread& thread);
  std::optional<unsigned> owner_of(size_t at, unsigned phase) const;
  bool is_guarded(size_t at) const { return at % kPageBytes >= kPageBytes - kGuarded; }
  std::optional<Touch> next_touch(Thread& thread);
  std::optional<Touch> next_of_flags(Thread& thread);
  size_t flag_at(unsigned thread) const { return (options_.pages - 1) * kPageBytes + 64 * thread; }
  // Returns whether anything was done.
  bool step_memory(Thread& thread);
  bool step(Thread& thread);
  void carry_out(Thread& thread, const Touch& touch, std::byte* there);
  void saw_flag(Thread& thread, unsigned of, unsigned value);
  void run_some(unsigned node);
  bool until(const std::function<bool()>& done);

  void tell(unsigned from, unsigned to, Call call, unsigned number, unsigned value);
  void take(unsigned from, unsigned at, Call call, unsigned number, unsigned value);
  void arrive(Thread& thread);
  void has_arrived(unsigned node, unsigned phase);
  void go(unsigned node, unsigned phase);
  void pass(unsigned node);
  void grant(unsigned lock);
  unsigned pick(uint64_t below) { return static_cast<unsigned>(random_() % below); }
  void fail(std::string why);

  const Options options_;
  std::mt19937_64 random_;
  EventLoop loop_;
  std::unique_ptr<LoopbackFabric> fabric_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<Thread> threads_;
  std::vector<uint8_t> memory_;  // the reference
  uint8_t next_value_ = 0;
  std::string failure_;
  bool is_meanwhile_ = false;
  // At home.
  std::set<unsigned> at_barrier_;  // nodes
  std::optional<unsigned> told_;   // the last one of those
  struct Lock {
    std::optional<unsigned> holder = {};
    std::deque<unsigned> waiters = {};
  };
  std::vector<Lock> locks_;
};

}  // namespace krg
