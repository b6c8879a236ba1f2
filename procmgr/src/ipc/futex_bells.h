// FutexBells: this node's share in waits for words of shared memory. A program wakes by its own
// kernel's FUTEX_WAKE, which krgd does not see; so a thread of krgd's, a bell, waits in that kernel
// on the word for each program that waits anywhere, and tells when it is woken. A wake is then a
// native call: no signal can interrupt it, FUTEX_WAKE_OP and the kernel's own wakes (the end of a
// thread, a robust mutex) work, and it costs nothing where nobody waits.
//
// A bell that is not needed rests on a word of krgd's own; FUTEX_REQUEUE moves it to the program's
// word and back, and says exactly how many it has moved: once it has returned, no wake can miss
// them. All bells of a word belong to it alone, so that it is known where one has rung.
//
// Threads: the loop's thread, and one for each bell, which has nothing but its tower (the .cpp).
// Owned by FutexCalls. Source: futex(2). SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "alive.h"
#include "krg/procmgr/shared_memory.h"
#include "krg/runtime/event_loop.h"

namespace krg {

class FutexBells {
 public:
  // `memory`: the memory file of a set on this node, -1 where there is none. `rung`: a wake has
  // reached so many bells of a word, which hang there no more.
  FutexBells(EventLoop& loop, std::function<int(SetId)> memory,
             std::function<void(const SharedPlace&, uint32_t count)> rung);
  ~FutexBells();
  FutexBells(const FutexBells&) = delete;
  FutexBells& operator=(const FutexBells&) = delete;

  // Hangs `count` more bells at a word. `done` runs once wakes reach them; also where some cannot
  // be had (their waiters look at the word themselves, once a second).
  void hang(const SharedPlace& place, uint32_t count, std::function<void()> done);
  // Takes `count` of them away, no more than there are.
  void take(const SharedPlace& place, uint32_t count);
  // Takes all away, at one word or everywhere.
  void take_all(const SharedPlace& place);
  void take_all();

 private:
  struct Tower;
  struct Rings;
  using TowerPtr = std::shared_ptr<Tower>;
  TowerPtr find_or_make(const SharedPlace& place);
  void settle(const TowerPtr& tower);
  bool add_threads(const TowerPtr& tower);
  void collect();
  void sweep();
  static void* run(void* argument);

  EventLoop& loop_;
  const std::function<int(SetId)> memory_;
  const std::function<void(const SharedPlace&, uint32_t)> rung_;
  std::map<SharedPlace, TowerPtr> towers_;
  size_t threads_ = 0;
  const std::shared_ptr<Rings> rings_;
  EventLoop::Timer sweep_timer_;
  Alive alive_;
};

}  // namespace krg
