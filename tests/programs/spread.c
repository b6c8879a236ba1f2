// Threads that share everything. What is printed does not depend on who ran where.
//   spread work THREADS [COMMAND]
//     a sum under a mutex, rounds between barriers, a queue between condition variables; COMMAND
//     runs while all threads wait
//   spread signals
//     handlers run in the thread that a signal was sent to
//   spread fault | exit | exec [COMMAND]
//     a thread other than the first does that
//   spread children
//     posix_spawn(3) by system(3) and popen(3); fork(2) by several threads
//   spread libraries
//     dlopen(3) by a thread that is elsewhere
//   spread calls
//     calls whose memory the other thread uses in between
//   spread neighbours
//     two threads write words of their own on one page, by turns
//   spread moves
//     prints the numbers of a thread that computes and of one that waits, till its input ends; they
//     are moved meanwhile
//   spread spin
//     prints its pid and computes for ever
// SPDX-License-Identifier: GPL-2.0-or-later
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kThreads = 4, kNumbers = 1 << 16, kRounds = 20, kItems = 100 };

static long numbers[kNumbers];
static long total;
static long rounds[kThreads][kRounds];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t filled = PTHREAD_COND_INITIALIZER, emptied = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static int item, has_item;
static long produced, consumed;
static unsigned threads = 1;
static const char* command;
static __thread long own;

static void* sum(void* argument) {
  const unsigned self = (unsigned)(long)argument;
  long part = 0;
  for (unsigned i = self; i < kNumbers; i += threads) part += numbers[i];
  own = part;
  pthread_mutex_lock(&mutex);
  total += own;
  pthread_mutex_unlock(&mutex);
  char* block = malloc(100000);
  memset(block, (int)self, 100000);
  const long last = block[99999];
  free(block);
  pthread_barrier_wait(&barrier);
  if (self == 0 && command && system(command) != 0) abort();
  pthread_barrier_wait(&barrier);
  return (void*)(last + 1);
}

static void* run_rounds(void* argument) {
  const unsigned self = (unsigned)(long)argument;
  for (int round = 0; round < kRounds; ++round) {
    const long before = round == 0 ? 1 : rounds[(self + 1) % threads][round - 1];
    rounds[self][round] = before + self + 1;
    pthread_barrier_wait(&barrier);
  }
  return NULL;
}

static void* produce(void* argument) {
  (void)argument;
  for (int i = 1; i <= kItems; ++i) {
    pthread_mutex_lock(&mutex);
    while (has_item) pthread_cond_wait(&emptied, &mutex);
    item = i;
    has_item = 1;
    produced += i;
    pthread_cond_signal(&filled);
    pthread_mutex_unlock(&mutex);
  }
  return NULL;
}

static void consume(void) {
  for (int i = 1; i <= kItems; ++i) {
    pthread_mutex_lock(&mutex);
    while (!has_item) pthread_cond_wait(&filled, &mutex);
    consumed += item;
    has_item = 0;
    pthread_cond_signal(&emptied);
    pthread_mutex_unlock(&mutex);
  }
}

static void run_all(void* (*function)(void*), long* returned) {
  pthread_t others[kThreads];
  for (long i = 1; i < threads; ++i)
    if (pthread_create(&others[i], NULL, function, (void*)i) != 0) abort();
  *returned = (long)function((void*)0);
  for (unsigned i = 1; i < threads; ++i) {
    void* result;
    pthread_join(others[i], &result);
    *returned += (long)result;
  }
}

static void work(void) {
  for (int i = 0; i < kNumbers; ++i) numbers[i] = i * 7L % 1001;
  pthread_barrier_init(&barrier, NULL, threads);
  long returned;
  run_all(sum, &returned);
  printf("sum %ld, returned %ld\n", total, returned);
  run_all(run_rounds, &returned);
  long last = 0;
  for (unsigned i = 0; i < threads; ++i) last += rounds[i][kRounds - 1];
  printf("rounds %ld\n", last);
  pthread_t producer;
  if (pthread_create(&producer, NULL, produce, NULL) != 0) abort();
  consume();
  pthread_join(producer, NULL);
  printf("produced %ld, consumed %ld\n", produced, consumed);
}

static void in_other_thread(void* (*function)(void*)) {
  pthread_t other;
  if (pthread_create(&other, NULL, function, NULL) != 0) abort();
  pthread_join(other, NULL);
}

static atomic_int handled, ends;
static pthread_t handler_ran_in;

static void handler(int signal) {
  handler_ran_in = pthread_self();
  handled = signal;
}
static void* compute(void* argument) {
  for (volatile long n = 0; !ends;) ++n;
  return argument;
}
static void* wait_long(void* argument) {
  while (!ends) sleep(100);
  return argument;
}
static void signal_thread(void* (*function)(void*)) {
  pthread_t other;
  handled = ends = 0;
  if (pthread_create(&other, NULL, function, NULL) != 0) abort();
  usleep(50000);
  pthread_kill(other, SIGUSR1);
  while (!handled) usleep(1000);
  ends = 1;
  pthread_kill(other, SIGUSR1);
  pthread_join(other, NULL);
  printf("signal %d, by the right thread %d\n", handled, pthread_equal(handler_ran_in, other) != 0);
}

static volatile int* volatile nothing = NULL;
static void* touch_nothing(void* argument) {
  usleep(1000);
  *nothing = 1;
  return argument;
}
static void* end_all(void* argument) {
  (void)argument;
  exit(7);
}
static void* become_another(void* argument) {
  execl("/bin/sh", "sh", "-c", command ? command : "echo another program; exit 5", NULL);
  return argument;
}
static void* make_children(void* argument) {
  const int status = system("exit 3");
  FILE* pipe = popen("echo piped", "r");
  char line[50] = "";
  if (!pipe || !fgets(line, sizeof line, pipe)) abort();
  pclose(pipe);
  printf("status %d, %s", status >> 8, line);
  return argument;
}

// A child has what its parent had at that moment, and only that; it may have threads, and children.
enum { kForked = 1 << 20 };
static char* forked;
static void* fork_child(void* argument) {
  for (int i = 0; i < kForked; i += 512) forked[i] = (char)(i / 512 + 1);
  own = 5;
  fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    long right = 0;
    for (int i = 0; i < kForked; i += 512) right += forked[i] == (char)(i / 512 + 1);
    memset(forked, 99, kForked);
    pthread_t other;
    ends = 1;
    void* result = NULL;
    if (pthread_create(&other, NULL, compute, &right) != 0) abort();
    pthread_join(other, &result);
    const int status = system("exit 4");
    _exit(right == kForked / 512 && own == 5 && result == &right && status >> 8 == 4 &&
                  pthread_mutex_lock(&mutex) == 0 && getpid() == (pid_t)syscall(SYS_gettid)
              ? 3
              : 4);
  }
  memset(forked, 0, kForked);
  int status = 0;
  long kept = 0;
  if (waitpid(child, &status, 0) != child) abort();
  for (int i = 0; i < kForked; i++) kept += forked[i];
  printf("child %d, kept %ld\n", status >> 8, kept);
  return argument;
}

// Two words on different pages, written one after the other: a child never sees the second one
// ahead, nor the first one ahead by more than one, whatever writes while it is made.
static struct {
  atomic_long first;
  char between[8192];
  atomic_long second;
} pair;
static void* write_pair(void* argument) {
  for (long n = 1; !ends; ++n) {
    pair.first = n;
    pair.second = n;
  }
  return argument;
}
static pid_t fork_by_clone3(int* pidfd) {
  enum { kFlags, kPidfd, kExitSignal = 4, kWords = 8 };  // struct clone_args
  const unsigned long long arguments[kWords] = {
      [kFlags] = CLONE_PIDFD, [kPidfd] = (unsigned long)pidfd, [kExitSignal] = SIGCHLD};
  return (pid_t)syscall(SYS_clone3, arguments, sizeof arguments);
}
static void fork_while_others_write(void) {
  pthread_t writer;
  long right = 0;
  ends = 0;
  if (pthread_create(&writer, NULL, write_pair, NULL) != 0) abort();
  while (!pair.second) usleep(1000);
  fflush(stdout);
  for (int i = 0; i < 10; ++i) {
    int pidfd = -1;
    const pid_t child = i % 2 == 0 ? fork() : fork_by_clone3(&pidfd);
    if (child == 0) _exit(pair.first - pair.second == 0 || pair.first - pair.second == 1 ? 6 : 7);
    int status = 0;
    if (waitpid(child, &status, 0) != child) abort();
    right += status >> 8 == 6 && (i % 2 == 0 || close(pidfd) == 0);
  }
  ends = 1;
  pthread_join(writer, NULL);
  printf("children made in a moment: %ld\n", right);
}
static void fork_children(void) {
  forked = malloc(kForked);
  in_other_thread(fork_child);
  fork_child(NULL);
  in_other_thread(fork_child);
  fork_while_others_write();
}
static __attribute__((aligned(4096))) long neighbours[512];
static void* write_own_word(void* argument) {
  const unsigned self = (unsigned)(long)argument;
  usleep(300000);  // it could have ended before it is spread
  for (int round = 0; round < kRounds; ++round) {
    neighbours[self * 3]++;
    pthread_barrier_wait(&barrier);
  }
  return NULL;
}
static void be_neighbours(void) {
  long returned;
  threads = 2;
  pthread_barrier_init(&barrier, NULL, threads);
  run_all(write_own_word, &returned);
  printf("%ld %ld\n", neighbours[0], neighbours[3]);
}

// Where a thread runs changes nothing for it.
static atomic_int tids[2];
static volatile double in_memory;
static int may_end;
static void* compute_steadily(void* argument) {
  tids[0] = (int)syscall(SYS_gettid);
  long wrong = 0;
  own = 17;
  for (long round = 1; !ends; ++round) {
    double sum = 0;
    in_memory = (double)round;
    for (int i = 1; i <= 1000; ++i) sum += 0.5 * i * (double)(round % 97);
    wrong += sum != 250250.0 * (double)(round % 97) || in_memory != (double)round || own != 17;
    wrong += tids[0] != (int)syscall(SYS_gettid);
    char* block = malloc((size_t)(round % 5000 + 1));
    block[round % 5000] = (char)round;
    wrong += block[round % 5000] != (char)round;
    free(block);
  }
  *(long*)argument = wrong;
  return argument;
}
static void* wait_steadily(void* argument) {
  pthread_mutex_lock(&mutex);
  tids[1] = (int)syscall(SYS_gettid);
  while (!may_end) pthread_cond_wait(&filled, &mutex);
  pthread_mutex_unlock(&mutex);
  *(long*)argument = 1;
  return argument;
}
// A byte of its input; a number is in xmm9 while it waits, as the kernel keeps it.
static long read_with_vector_register(void) {
  char byte;
  long result = SYS_read;
  __asm__ volatile("movq %[number], %%xmm9\n\tsyscall"
                   : "+a"(result)
                   : [number] "r"(1234567890123L), "D"(0L), "S"(&byte), "d"(1L)
                   : "rcx", "r11", "xmm9", "memory");
  return result;
}

static void be_moved(void) {
  pthread_t computing, waiting;
  long wrong = -1, woken = 0;
  if (pthread_create(&computing, NULL, compute_steadily, &wrong) != 0) abort();
  if (pthread_create(&waiting, NULL, wait_steadily, &woken) != 0) abort();
  while (!tids[0] || !tids[1]) usleep(1000);
  printf("%d %d %d\n", getpid(), tids[0], tids[1]);
  fflush(stdout);
  while (read_with_vector_register() == 1) {
  }
  ends = 1;
  pthread_mutex_lock(&mutex);
  may_end = 1;
  pthread_cond_broadcast(&filled);
  pthread_mutex_unlock(&mutex);
  pthread_join(computing, NULL);
  pthread_join(waiting, NULL);
  printf("wrong %ld, woken %ld\n", wrong, woken);
}
// Calls that krgd may have to answer read and write memory that is elsewhere.
static char of_calls[3 * 4096];
static void* call_with(void* argument) {
  long* wrong = argument;
  char* there = of_calls + 4096;
  for (int i = 0; i < kRounds; ++i) {
    memset(there, 0, 128);
    *wrong += syscall(SYS_sched_getaffinity, 0, 128, there) <= 0;
    *wrong += sched_setaffinity(0, 128, (cpu_set_t*)there) != 0;
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
  }
  return argument;
}
static void call_by_turns(void) {
  pthread_t other;
  long wrong = 0;
  pthread_barrier_init(&barrier, NULL, 2);
  if (pthread_create(&other, NULL, call_with, &wrong) != 0) abort();
  for (int i = 0; i < kRounds; ++i) {
    pthread_barrier_wait(&barrier);
    memset(of_calls, 1, sizeof of_calls);
    pthread_barrier_wait(&barrier);
  }
  pthread_join(other, NULL);
  printf("calls that failed: %ld\n", wrong);
}
static void* open_library(void* argument) {
#ifndef NO_LIBRARIES
  void* library = dlopen("libresolv.so.2", RTLD_NOW);
  void* function = library ? dlsym(library, "ns_get32") : NULL;
  const unsigned char bytes[] = {0, 1, 2, 3};
  printf("library: %lu\n",
         function ? ((unsigned long (*)(const unsigned char*))function)(bytes) : 0);
#endif
  return argument;
}

int main(int argc, char** argv) {
  const char* mode = argc > 1 ? argv[1] : "";
  if (strcmp(mode, "work") == 0) {
    threads = argc > 2 ? (unsigned)atoi(argv[2]) : 2;
    command = argc > 3 ? argv[3] : NULL;
    if (threads < 1 || threads > kThreads) return 2;
    work();
  } else if (strcmp(mode, "signals") == 0) {
    signal(SIGUSR1, handler);
    signal_thread(compute);
    signal_thread(wait_long);
  } else if (strcmp(mode, "fault") == 0) {
    in_other_thread(touch_nothing);
  } else if (strcmp(mode, "exit") == 0) {
    in_other_thread(end_all);
  } else if (strcmp(mode, "exec") == 0) {
    command = argc > 2 ? argv[2] : NULL;
    in_other_thread(become_another);
  } else if (strcmp(mode, "children") == 0) {
    in_other_thread(make_children);
    fork_children();
  } else if (strcmp(mode, "libraries") == 0) {
    in_other_thread(open_library);
  } else if (strcmp(mode, "neighbours") == 0) {
    be_neighbours();
  } else if (strcmp(mode, "calls") == 0) {
    call_by_turns();
  } else if (strcmp(mode, "moves") == 0) {
    be_moved();
  } else if (strcmp(mode, "spin") == 0) {
    printf("%d\n", getpid());
    fflush(stdout);
    in_other_thread(compute);
  } else {
    return 2;
  }
  return 0;
}
