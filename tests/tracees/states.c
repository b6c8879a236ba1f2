/* As features.c: what threads and processes have that the kernel keeps for them beside memory and
 * descriptors. "states hold NAME" and "states take NAME" have and take a robust mutex in the file
 * NAME of /dev/shm. SPDX-License-Identifier: GPL-2.0-or-later */
#include "states.h"

#include <sched.h>
#include <sys/prctl.h>

int64_t end_ns;

/* A thread that ends while it has a robust mutex leaves it to the next one, who is told. */
static pthread_mutex_t robust, second;
static int is_held;
static void make_robust(pthread_mutex_t* mutex, int shared) {
  pthread_mutexattr_t kind;
  pthread_mutexattr_init(&kind);
  pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
  pthread_mutexattr_setpshared(&kind, shared);
  pthread_mutex_init(mutex, &kind);
}
static void* dies_with_them(void* unused) {
  if (pthread_mutex_lock(&robust) != 0 || pthread_mutex_lock(&second) != 0) return "lock";
  __atomic_store_n(&is_held, 1, __ATOMIC_SEQ_CST);
  rest(8);
  return unused;
}
static void robust_mutexes(void) {
  for (int round = 0; goes_on(); ++round) {
    make_robust(&robust, PTHREAD_PROCESS_PRIVATE);
    make_robust(&second, PTHREAD_PROCESS_PRIVATE);
    is_held = 0;
    pthread_t holder;
    check(pthread_create(&holder, NULL, dies_with_them, NULL) == 0, "pthread_create");
    while (!__atomic_load_n(&is_held, __ATOMIC_SEQ_CST)) rest(1);
    /* Now and then it waits for a holder who has died already. */
    if (round % 3 == 0) pthread_join(holder, NULL);
    check(pthread_mutex_lock(&robust) == EOWNERDEAD, "an owner that died");
    if (round % 3 != 0) pthread_join(holder, NULL);
    check(pthread_mutex_lock(&second) == EOWNERDEAD, "an owner that died, twice");
    check(pthread_mutex_consistent(&robust) == 0 && pthread_mutex_unlock(&robust) == 0, "mended");
    check(pthread_mutex_lock(&robust) == 0 && pthread_mutex_unlock(&robust) == 0, "lock");
    check(pthread_mutex_unlock(&second) == 0, "unlock");
    check(pthread_mutex_lock(&second) == ENOTRECOVERABLE, "not mended");
  }
  puts("all mutexes left to the next");
}

/* The same of a process; one has it until it is killed, one takes it. */
static pthread_mutex_t* shared_mutex(const char* name, int flags) {
  char path[128];
  snprintf(path, sizeof path, "/dev/shm/%s", name);
  const int file = open(path, O_RDWR | flags, 0600);
  check(file >= 0 && ftruncate(file, 4096) == 0, path);
  void* at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  check(at != MAP_FAILED, "mmap");
  close(file);
  return at;
}
static void hold(const char* name) {
  pthread_mutex_t* mutex = shared_mutex(name, O_CREAT | O_EXCL);
  make_robust(mutex, PTHREAD_PROCESS_SHARED);
  check(pthread_mutex_lock(mutex) == 0, "lock");
  puts("has it");
  for (;;) pause();
}
static void take(const char* name) {
  pthread_mutex_t* mutex = shared_mutex(name, 0);
  check(pthread_mutex_trylock(mutex) == EBUSY, "trylock");
  puts("waits");
  const int locked = pthread_mutex_lock(mutex);
  printf("locked: %s, mended: %d\n", strerror(locked), pthread_mutex_consistent(mutex));
}

/* Each thread stays on its processor, which has another number on another node; one may use all. */
enum { kOnFirst, kOnLast, kAnywhere, kBound };
static cpu_set_t all;
static pthread_barrier_t all_bound;
static int own_processor(int last) {
  cpu_set_t one;
  /* It may be moved between two tries: those of other nodes are refused. */
  for (int i = 0; i < 1000 * CPU_SETSIZE; ++i) {
    const int place = i % CPU_SETSIZE, number = last ? CPU_SETSIZE - 1 - place : place;
    if (!CPU_ISSET(number, &all)) continue;
    CPU_ZERO(&one);
    CPU_SET(number, &one);
    if (sched_setaffinity(0, sizeof one, &one) == 0) return sched_getcpu();
  }
  fail("no processor to be had");
}
static void* stays(void* which) {
  const int how = (int)(intptr_t)which, processor = how == kAnywhere ? -1 : own_processor(how);
  const int count = how == kAnywhere ? CPU_COUNT(&all) : 1;
  pthread_barrier_wait(&all_bound);
  while (goes_on()) {
    cpu_set_t now;
    check(sched_getaffinity(0, sizeof now, &now) == 0 && CPU_COUNT(&now) == count, "processors");
    if (processor >= 0) check(sched_getcpu() == processor, "the processor");
    rest(3);
  }
  return NULL;
}
static void affinity(void) {
  pthread_t made[kBound];
  check(sched_getaffinity(0, sizeof all, &all) == 0, "sched_getaffinity");
  pthread_barrier_init(&all_bound, NULL, kBound);
  for (intptr_t i = 0; i < kBound; ++i) pthread_create(&made[i], NULL, stays, (void*)i);
  for (int i = 0; i < kBound; ++i) pthread_join(made[i], NULL);
  puts("all stayed on their processors");
}

enum { kCrowd = 200 };
static __thread long own[64];
static pthread_mutex_t held[kCrowd / 2], turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static long turns, held_in_all;
static int is_over;
/* Two of them want the same mutex, which one has while it sleeps; then each waits for its turn. */
static void* of_many(void* number) {
  const int self = (int)(intptr_t)number;
  pthread_mutex_t* mine = &held[self / 2];
  long seen = 0, count = 0;
  for (int i = 0; i < 64; ++i) own[i] = self * 64 + i;
  for (int ends = 0; !ends; ++count) {
    pthread_mutex_lock(mine);
    rest(5);
    __atomic_add_fetch(&held_in_all, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(mine);
    for (int i = 0; i < 64; ++i)
      if (own[i] != self * 64 + i) return (void*)-1l;
    pthread_mutex_lock(&turn_lock);
    while (turns == seen && !is_over) pthread_cond_wait(&turned, &turn_lock);
    seen = turns;
    ends = is_over;
    pthread_mutex_unlock(&turn_lock);
  }
  return (void*)count;
}
static void crowd(void) {
  pthread_t made[kCrowd];
  pthread_attr_t small;
  pthread_attr_init(&small);
  pthread_attr_setstacksize(&small, 65536);
  for (int i = 0; i < kCrowd / 2; ++i) pthread_mutex_init(&held[i], NULL);
  for (intptr_t i = 0; i < kCrowd; ++i)
    check(pthread_create(&made[i], &small, of_many, (void*)i) == 0, "pthread_create");
  long sum = 0;
  for (int ends = 0; !ends;) {
    rest(20);
    pthread_mutex_lock(&turn_lock);
    ++turns;
    ends = is_over = !goes_on();
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&turn_lock);
  }
  for (int i = 0; i < kCrowd; ++i) {
    void* count;
    pthread_join(made[i], &count);
    check((long)count > 0, "a thread's own");
    sum += (long)count;
  }
  check(sum == held_in_all, "mutexes held");
  printf("%d threads had their own\n", kCrowd);
}

static const struct {
  const char* name;
  void (*run)(void);
} kStates[] = {
    {"robust_mutexes", robust_mutexes},     {"sequences", sequences}, {"affinity", affinity},
    {"process_settings", process_settings}, {"vectors", vectors},     {"crowd", crowd}};

int main(int argc, char** argv) {
  const size_t count = sizeof kStates / sizeof kStates[0];
  for (size_t i = 0; argc < 3 && i < count; ++i) puts(kStates[i].name);
  if (argc < 3) return 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (strcmp(argv[1], "hold") == 0) hold(argv[2]);
  if (strcmp(argv[1], "take") == 0) return take(argv[2]), 0;
  end_ns = now_ns() + atoll(argv[2]) * 1000000;
  for (size_t i = 0; i < count; ++i)
    if (strcmp(kStates[i].name, argv[1]) == 0) {
      kStates[i].run();
      return 0;
    }
  return 2;
}
