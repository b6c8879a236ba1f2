// critical, atomic and the omp_*_lock functions. A lock lies in the word that the program has for
// it, so that taking one that is free costs no more than a compare-and-swap; the nameless critical
// section and atomic have theirs here. Two generations of omp_*_lock: OMP_3.0's belong to tasks,
// OMP_1.0's nestable ones to threads.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <time.h>

#include <new>

#include "distant.h"

namespace krg::omp {
namespace {

// How often to look whether a program's lock is free before sleeping where threads share
// processors.
constexpr int kLeastLooks = 16;

struct alignas(64) OwnMutex {
  Mutex mutex;
};
OwnMutex nameless, atomics;

Mutex& named(void** name) {
  return *reinterpret_cast<Mutex*>(name);
}

// In a process whose threads are on several nodes a lock's state is krgd's, by the word's address,
// and the word stays free, but for locks that were taken before that began: whoever gets a word
// then, having waited for it, gives it back (either sees what the other one has written).
void wait_until_free(const Mutex& mutex) {
  while (mutex.is_held()) {
    const timespec moment{0, 200'000};
    nanosleep(&moment, nullptr);
  }
}
[[gnu::noinline]] bool acquire_slowly(Mutex& mutex, const void* owner, bool is_taken) {
  if (!distant::is_on()) {
    mutex.lock(kLeastLooks);
    is_taken = true;
    if (!distant::is_on()) return true;
  }
  if (is_taken) mutex.unlock();
  wait_until_free(mutex);
  distant::lock(&mutex, owner);
  return false;
}
// True: by the word.
inline bool acquire(Mutex& mutex, const void* owner = nullptr) {
  if (__builtin_expect(distant::is_off(), 1)) {
    mutex.lock(kLeastLooks);
    return true;
  }
  const bool is_taken = !distant::is_on() && mutex.try_lock();
  if (__builtin_expect(is_taken && !distant::is_on(), 1)) return true;
  return acquire_slowly(mutex, owner, is_taken);
}
inline void release(Mutex& mutex) {
  if (__builtin_expect(distant::is_off(), 1)) return mutex.unlock();
  distant::is_on() && !mutex.is_held() ? distant::unlock(&mutex) : mutex.unlock();
}
bool try_acquire(Mutex& mutex) {
  if (!distant::is_on()) return mutex.try_lock();
  return !mutex.is_held() && distant::try_lock(&mutex) != 0;
}

struct NestLock {
  Mutex mutex;
  int depth;
  Task* owner;
};
static_assert(sizeof(NestLock) == 16);

struct OldNestLock {
  std::atomic<unsigned> owner;  // the low half of its Thread's address
  int depth;
};
static_assert(sizeof(OldNestLock) == 8);

void set(NestLock& lock) {
  Task* task = this_thread().at.task;
  if (__atomic_load_n(&lock.owner, __ATOMIC_RELAXED) != task) {
    if (!acquire(lock.mutex, task)) return;
    __atomic_store_n(&lock.owner, task, __ATOMIC_RELAXED);
  }
  ++lock.depth;
}
void unset(NestLock& lock) {
  if (distant::is_on() && !lock.mutex.is_held()) return distant::unlock(&lock.mutex);
  if (--lock.depth != 0) return;
  __atomic_store_n(&lock.owner, nullptr, __ATOMIC_RELAXED);
  lock.mutex.unlock();
}
int test(NestLock& lock) {
  Task* task = this_thread().at.task;
  if (__atomic_load_n(&lock.owner, __ATOMIC_RELAXED) != task) {
    if (distant::is_on())
      return lock.mutex.is_held() ? 0 : int(distant::try_lock(&lock.mutex, task));
    if (!lock.mutex.try_lock()) return 0;
    __atomic_store_n(&lock.owner, task, __ATOMIC_RELAXED);
  }
  return ++lock.depth;
}

// The word is the owner, so waiters cannot mark it: they look again and again, with pauses.
unsigned old_owner() {
  return unsigned(reinterpret_cast<std::uintptr_t>(&this_thread()) >> 6);
}
int test(OldNestLock& lock) {
  const unsigned self = old_owner();
  if (distant::is_on() && lock.owner.load() != self)
    return lock.owner.load() != 0 ? 0 : int(distant::try_lock(&lock, &this_thread()));
  unsigned free = 0;
  if (lock.owner.load() != self && !lock.owner.compare_exchange_strong(free, self)) return 0;
  return ++lock.depth;
}
void set(OldNestLock& lock) {
  while (test(lock) == 0) {
    const unsigned owner = lock.owner.load();
    if (owner != 0) {
      futex_wait(lock.owner, owner);
    } else if (distant::is_on()) {
      distant::lock(&lock, &this_thread());
      return;
    }
  }
}
void unset(OldNestLock& lock) {
  if (distant::is_on() && lock.owner.load() == 0) return distant::unlock(&lock);
  if (--lock.depth != 0) return;
  lock.owner.store(0);
  futex_wake(lock.owner, 1);
}

}  // namespace
}  // namespace krg::omp

using namespace krg::omp;
#pragma GCC visibility push(default)
extern "C" {

void GOMP_critical_start() {
  acquire(nameless.mutex);
}
void GOMP_critical_end() {
  release(nameless.mutex);
}
void GOMP_critical_name_start(void** name) {
  acquire(named(name));
}
void GOMP_critical_name_end(void** name) {
  release(named(name));
}
void GOMP_atomic_start() {
  acquire(atomics.mutex);
}
void GOMP_atomic_end() {
  release(atomics.mutex);
}

void krg_init_lock(Mutex* lock) {
  new (lock) Mutex;
}
void krg_destroy_lock(Mutex*) {}
void krg_set_lock(Mutex* lock) {
  acquire(*lock);
}
void krg_unset_lock(Mutex* lock) {
  release(*lock);
}
int krg_test_lock(Mutex* lock) {
  return try_acquire(*lock) ? 1 : 0;
}
void krg_init_nest_lock(NestLock* lock) {
  new (lock) NestLock{};
}
void krg_destroy_nest_lock(NestLock*) {}
void krg_set_nest_lock(NestLock* lock) {
  set(*lock);
}
void krg_unset_nest_lock(NestLock* lock) {
  unset(*lock);
}
int krg_test_nest_lock(NestLock* lock) {
  return test(*lock);
}

void krg_init_lock_1(Mutex* lock) {
  new (lock) Mutex;
}
void krg_destroy_lock_1(Mutex*) {}
void krg_set_lock_1(Mutex* lock) {
  acquire(*lock);
}
void krg_unset_lock_1(Mutex* lock) {
  release(*lock);
}
int krg_test_lock_1(Mutex* lock) {
  return try_acquire(*lock) ? 1 : 0;
}
void krg_init_nest_lock_1(OldNestLock* lock) {
  lock->owner.store(0);
  lock->depth = 0;
}
void krg_destroy_nest_lock_1(OldNestLock*) {}
void krg_set_nest_lock_1(OldNestLock* lock) {
  set(*lock);
}
void krg_unset_nest_lock_1(OldNestLock* lock) {
  unset(*lock);
}
int krg_test_nest_lock_1(OldNestLock* lock) {
  return test(*lock);
}

// Fortran: a nestable lock's variable has 8 bytes, so OMP_3.0's holds a pointer to the lock.
void krg_init_lock_f(Mutex* lock) {
  new (lock) Mutex;
}
void krg_destroy_lock_f(Mutex*) {}
void krg_set_lock_f(Mutex* lock) {
  acquire(*lock);
}
void krg_unset_lock_f(Mutex* lock) {
  release(*lock);
}
int krg_test_lock_f(Mutex* lock) {
  return try_acquire(*lock) ? 1 : 0;
}
void krg_init_nest_lock_f(NestLock** lock) {
  *lock = new (this_thread().blocks.allocate(Side::program, sizeof(NestLock))) NestLock{};
}
void krg_destroy_nest_lock_f(NestLock** lock) {
  this_thread().blocks.free(Side::program, *lock, sizeof(NestLock));
  *lock = nullptr;
}
void krg_set_nest_lock_f(NestLock** lock) {
  set(**lock);
}
void krg_unset_nest_lock_f(NestLock** lock) {
  unset(**lock);
}
int krg_test_nest_lock_f(NestLock** lock) {
  return test(**lock);
}

void krg_init_lock_f1(Mutex* lock) {
  new (lock) Mutex;
}
void krg_destroy_lock_f1(Mutex*) {}
void krg_set_lock_f1(Mutex* lock) {
  acquire(*lock);
}
void krg_unset_lock_f1(Mutex* lock) {
  release(*lock);
}
int krg_test_lock_f1(Mutex* lock) {
  return try_acquire(*lock) ? 1 : 0;
}
void krg_init_nest_lock_f1(OldNestLock* lock) {
  krg_init_nest_lock_1(lock);
}
void krg_destroy_nest_lock_f1(OldNestLock*) {}
void krg_set_nest_lock_f1(OldNestLock* lock) {
  set(*lock);
}
void krg_unset_nest_lock_f1(OldNestLock* lock) {
  unset(*lock);
}
int krg_test_nest_lock_f1(OldNestLock* lock) {
  return test(*lock);
}
}

// Their names and versions.
asm(".symver krg_init_lock, omp_init_lock@@OMP_3.0");
asm(".symver krg_destroy_lock, omp_destroy_lock@@OMP_3.0");
asm(".symver krg_set_lock, omp_set_lock@@OMP_3.0");
asm(".symver krg_unset_lock, omp_unset_lock@@OMP_3.0");
asm(".symver krg_test_lock, omp_test_lock@@OMP_3.0");
asm(".symver krg_init_nest_lock, omp_init_nest_lock@@OMP_3.0");
asm(".symver krg_destroy_nest_lock, omp_destroy_nest_lock@@OMP_3.0");
asm(".symver krg_set_nest_lock, omp_set_nest_lock@@OMP_3.0");
asm(".symver krg_unset_nest_lock, omp_unset_nest_lock@@OMP_3.0");
asm(".symver krg_test_nest_lock, omp_test_nest_lock@@OMP_3.0");
asm(".symver krg_init_lock_1, omp_init_lock@OMP_1.0");
asm(".symver krg_destroy_lock_1, omp_destroy_lock@OMP_1.0");
asm(".symver krg_set_lock_1, omp_set_lock@OMP_1.0");
asm(".symver krg_unset_lock_1, omp_unset_lock@OMP_1.0");
asm(".symver krg_test_lock_1, omp_test_lock@OMP_1.0");
asm(".symver krg_init_nest_lock_1, omp_init_nest_lock@OMP_1.0");
asm(".symver krg_destroy_nest_lock_1, omp_destroy_nest_lock@OMP_1.0");
asm(".symver krg_set_nest_lock_1, omp_set_nest_lock@OMP_1.0");
asm(".symver krg_unset_nest_lock_1, omp_unset_nest_lock@OMP_1.0");
asm(".symver krg_test_nest_lock_1, omp_test_nest_lock@OMP_1.0");
asm(".symver krg_init_lock_f, omp_init_lock_@@OMP_3.0");
asm(".symver krg_destroy_lock_f, omp_destroy_lock_@@OMP_3.0");
asm(".symver krg_set_lock_f, omp_set_lock_@@OMP_3.0");
asm(".symver krg_unset_lock_f, omp_unset_lock_@@OMP_3.0");
asm(".symver krg_test_lock_f, omp_test_lock_@@OMP_3.0");
asm(".symver krg_init_nest_lock_f, omp_init_nest_lock_@@OMP_3.0");
asm(".symver krg_destroy_nest_lock_f, omp_destroy_nest_lock_@@OMP_3.0");
asm(".symver krg_set_nest_lock_f, omp_set_nest_lock_@@OMP_3.0");
asm(".symver krg_unset_nest_lock_f, omp_unset_nest_lock_@@OMP_3.0");
asm(".symver krg_test_nest_lock_f, omp_test_nest_lock_@@OMP_3.0");
asm(".symver krg_init_lock_f1, omp_init_lock_@OMP_1.0");
asm(".symver krg_destroy_lock_f1, omp_destroy_lock_@OMP_1.0");
asm(".symver krg_set_lock_f1, omp_set_lock_@OMP_1.0");
asm(".symver krg_unset_lock_f1, omp_unset_lock_@OMP_1.0");
asm(".symver krg_test_lock_f1, omp_test_lock_@OMP_1.0");
asm(".symver krg_init_nest_lock_f1, omp_init_nest_lock_@OMP_1.0");
asm(".symver krg_destroy_nest_lock_f1, omp_destroy_nest_lock_@OMP_1.0");
asm(".symver krg_set_nest_lock_f1, omp_set_nest_lock_@OMP_1.0");
asm(".symver krg_unset_nest_lock_f1, omp_unset_nest_lock_@OMP_1.0");
asm(".symver krg_test_nest_lock_f1, omp_test_nest_lock_@OMP_1.0");
