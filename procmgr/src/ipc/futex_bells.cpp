// SPDX-License-Identifier: GPL-2.0-or-later
#include "futex_bells.h"

#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <mutex>
#include <vector>

#include "krg/runtime/log.h"
#include "krg/shmem/page_set.h"

namespace krg {
namespace {

using Clock = std::chrono::steady_clock;

// All bells of this node; waiters beyond them look at their words.
constexpr size_t kMostBells = 1024;
constexpr size_t kStackBytes = 128u << 10;
// How soon it is looked whether a bell has come to rest, and how often at the most; how long a word
// that nobody waits for keeps its bells.
constexpr std::chrono::microseconds kSoon{50};
constexpr unsigned kMostLooks = 2000;
constexpr std::chrono::seconds kRestTime{1};

enum Rest : uint32_t { kRests, kEnds };

long futex(void* word, int operation, uint32_t value, uint64_t value2 = 0, void* to = nullptr) {
  return syscall(SYS_futex, word, operation, value, value2, to, 0);
}
// How many bells it has moved; 0 also where the word is not there any more.
uint32_t move_bells(void* from, void* to, uint32_t count) {
  const long moved = futex(from, FUTEX_REQUEUE, 0, count, to);
  return moved > 0 ? static_cast<uint32_t>(moved) : 0;
}

}  // namespace

// What the threads tell. They may outlive all else.
struct FutexBells::Rings {
  std::mutex mutex;
  EventLoop* loop;  // none: nobody listens any more
  std::function<void()> collect;
  std::vector<TowerPtr> rung;
};

// A word and its bells. Its threads read `rest` and nothing else that changes.
struct FutexBells::Tower {
  Tower(const SharedPlace& where, std::shared_ptr<Rings> to) : place(where), rings(std::move(to)) {}
  Tower(const Tower&) = delete;
  Tower& operator=(const Tower&) = delete;

  const SharedPlace place;
  const std::shared_ptr<Rings> rings;
  void* page = MAP_FAILED;  // a mapping of its own, which outlives the page set's
  std::atomic<uint32_t> rest = kRests;
  uint32_t wanted = 0, hung = 0, threads = 0;
  std::vector<std::function<void()>> waiting = {};
  unsigned looks = 0;
  EventLoop::Timer look = {};
  Clock::time_point used = {};

  ~Tower() {
    if (page != MAP_FAILED) munmap(page, kPageBytes);
  }
  void* word() const { return static_cast<char*>(page) + place.offset; }
};

FutexBells::FutexBells(EventLoop& loop, std::function<int(SetId)> memory,
                       std::function<void(const SharedPlace&, uint32_t)> rung)
    : loop_(loop),
      memory_(std::move(memory)),
      rung_(std::move(rung)),
      rings_(std::make_shared<Rings>()) {
  rings_->loop = &loop;
  rings_->collect = alive_.guard([this] { collect(); });
}

FutexBells::~FutexBells() {
  {
    const std::lock_guard lock(rings_->mutex);
    rings_->loop = nullptr;
    rings_->rung.clear();
  }
  for (auto& [place, tower] : towers_) tower->waiting.clear();
  take_all();
  for (auto& [place, tower] : towers_) tower->used = {};
  sweep();
}

// A bell. It ends when its tower does.
void* FutexBells::run(void* argument) {
  const std::unique_ptr<TowerPtr> tower(static_cast<TowerPtr*>(argument));
  Tower& mine = **tower;
  while (mine.rest.load() == kRests) {
    if (futex(&mine.rest, FUTEX_WAIT, kRests) != 0) continue;
    if (mine.rest.load() != kRests) break;
    const std::lock_guard lock(mine.rings->mutex);
    if (!mine.rings->loop) break;
    mine.rings->rung.push_back(*tower);
    if (mine.rings->rung.size() == 1) mine.rings->loop->post(mine.rings->collect);
  }
  return nullptr;
}

FutexBells::TowerPtr FutexBells::find_or_make(const SharedPlace& place) {
  TowerPtr& tower = towers_[place];
  if (tower) return tower;
  tower = std::make_shared<Tower>(place, rings_);
  if (const int memory = memory_(place.set); memory >= 0)
    tower->page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, memory,
                       static_cast<off_t>(place.page.value * kPageBytes));
  if (!sweep_timer_) sweep_timer_ = loop_.every(kRestTime, [this] { sweep(); });
  return tower;
}

void FutexBells::hang(const SharedPlace& place, uint32_t count, std::function<void()> done) {
  const TowerPtr tower = find_or_make(place);
  if (tower->page == MAP_FAILED) return done();
  tower->wanted += count;
  tower->waiting.push_back(std::move(done));
  settle(tower);
}

void FutexBells::take(const SharedPlace& place, uint32_t count) {
  auto found = towers_.find(place);
  if (found == towers_.end()) return;
  found->second->wanted -= std::min(found->second->wanted, count);
  settle(found->second);
}

void FutexBells::take_all(const SharedPlace& place) {
  take(place, UINT32_MAX);
}

void FutexBells::take_all() {
  const auto towers = towers_;  // what settling calls may change them
  for (const auto& [place, tower] : towers) take_all(place);
}

// Moves bells until there are as many as wanted. Those that cannot be moved away have been rung:
// collect() will hear of them. A new thread, or one that has just rung, is not at rest yet.
void FutexBells::settle(const TowerPtr& tower) {
  tower->used = Clock::now();
  if (tower->hung > tower->wanted)
    tower->hung -= move_bells(tower->word(), &tower->rest, tower->hung - tower->wanted);
  if (tower->hung < tower->wanted)
    tower->hung += move_bells(&tower->rest, tower->word(), tower->wanted - tower->hung);
  if (tower->hung < tower->wanted && add_threads(tower) && tower->looks++ < kMostLooks) {
    tower->look = loop_.after(kSoon, [this, tower] { settle(tower); });
    return;
  }
  tower->looks = 0;
  tower->look.reset();
  for (auto& done : std::exchange(tower->waiting, {})) done();
}

// False when there are no more to be had.
bool FutexBells::add_threads(const TowerPtr& tower) {
  if (tower->threads >= tower->wanted) return true;  // they come to rest
  sigset_t all, before;
  sigfillset(&all);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (tower->threads < tower->wanted && threads_ < kMostBells) {
    pthread_t thread;
    auto argument = std::make_unique<TowerPtr>(tower);
    if (const int error = pthread_create(&thread, &attributes, run, argument.get()); error != 0) {
      log_warn("ipc", "a waiter of this node's kernel: {}", errno_error({}, error).message());
      break;
    }
    static_cast<void>(argument.release());  // the thread's
    ++tower->threads;
    ++threads_;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_attr_destroy(&attributes);
  return tower->threads >= tower->wanted;
}

void FutexBells::collect() {
  std::vector<TowerPtr> rung;
  {
    const std::lock_guard lock(rings_->mutex);
    rung.swap(rings_->rung);
  }
  std::map<SharedPlace, uint32_t> counts;
  for (const TowerPtr& tower : rung) {
    tower->hung -= std::min(tower->hung, 1u);
    tower->wanted -= std::min(tower->wanted, 1u);
    ++counts[tower->place];
  }
  for (const auto& [place, count] : counts) rung_(place, count);
}

void FutexBells::sweep() {
  const auto now = Clock::now();
  std::erase_if(towers_, [&](const auto& entry) {
    Tower& tower = *entry.second;
    if (tower.wanted > 0 || tower.hung > 0 || now - tower.used < kRestTime) return false;
    tower.look.reset();
    tower.rest = kEnds;
    futex(&tower.rest, FUTEX_WAKE, INT_MAX);
    threads_ -= tower.threads;
    return true;
  });
  if (towers_.empty()) sweep_timer_.reset();
}

}  // namespace krg
