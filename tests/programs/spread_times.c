// Processor time of threads, wherever they are: what is printed is the same everywhere.
//   spread_times calls THREADS [COMMAND]
//     each thread computes till its own clock has gone on by kBurned; then the calls that tell of
//     the process or another thread are compared with that, and COMMAND (with the process's and the
//     last thread's number in place of the first and second %d) runs
//   spread_times exit | thread | last | signal | exec
//     the same with kEnding threads, then the process ends so; its parent looks at what it has used
//   spread_times warned | limited | killed
//     another thread computes beyond RLIMIT_CPU's soft limit while the first one waits: a handler
//     of SIGXCPU ends that, or nothing does and the soft limit ends the process, or the hard one
//   spread_times profiled before | after
//     the same while a handler counts SIGPROF, each 0.1 s of processor time: a timer that is set
//     before that thread is made, or afterwards
//   spread_times alarmed
//     a timer of the program's own processor time ends the process
//   spread_times child COMMAND...
//     waitid's usage of COMMAND, in whole seconds
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { kMost = 16, kEnding = 4 };
static const double kBurned = 0.2;  // seconds
static const double kTick = 0.05;   // what may be missing where ticks are told

static unsigned threads;
static const char* ending;
static pthread_barrier_t barrier;
static double burned[kMost];
static pthread_t thread[kMost];
static pid_t tid[kMost];
static int failures;

static double seconds(struct timespec t) {
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static double clock_of(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now) != 0) abort();
  return seconds(now);
}

static void expect(int is_so, const char* what, double is, double wanted) {
  if (is_so) return;
  ++failures;
  printf("%s: %f, %f wanted\n", what, is, wanted);
}

static double of_usage(int who) {
  struct rusage usage;
  if (getrusage(who, &usage) != 0) abort();
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static double of_times(void) {
  struct tms all;
  if (times(&all) == (clock_t)-1) abort();
  return (double)(all.tms_utime + all.tms_stime) / (double)sysconf(_SC_CLK_TCK);
}

// utime and stime of a text of procfs.
static double of_stat(const char* path) {
  char text[1024] = {0};
  const int file = open(path, O_RDONLY);
  if (file < 0 || read(file, text, sizeof text - 1) <= 0) abort();
  close(file);
  unsigned long user, system;
  if (sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
             &system) != 2)
    abort();
  return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void compare(double since) {
  double all = 0;
  for (unsigned i = 0; i < threads; ++i) all += burned[i];
  const double process = clock_of(CLOCK_PROCESS_CPUTIME_ID);
  expect(process >= all, "the process's clock", process, all);
  const double usage = of_usage(RUSAGE_SELF);
  expect(usage >= process - 0.001, "getrusage", usage, process);
  const double ticks = of_times();
  expect(ticks >= process - kTick, "times", ticks, process);
  expect((double)clock() / CLOCKS_PER_SEC >= process - 0.001, "clock", 0, process);
  const double stat = of_stat("/proc/self/stat");
  expect(stat >= process - kTick, "/proc/self/stat", stat, process);
  for (unsigned i = 1; i < threads; ++i) {
    clockid_t clock;
    if (pthread_getcpuclockid(thread[i], &clock) != 0) abort();
    const double one = clock_of(clock);
    expect(one >= burned[i], "another thread's clock", one, burned[i]);
    expect(one < process, "another thread's clock", one, process);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", tid[i]);
    expect(of_stat(path) >= burned[i] - kTick, path, of_stat(path), burned[i]);
  }
  // Nothing counts twice: no thread has had more than all of the time.
  const double most = threads * (clock_of(CLOCK_MONOTONIC) - since);
  const double last = clock_of(CLOCK_PROCESS_CPUTIME_ID);
  expect(last <= most + kTick, "the process's clock", last, most);
}

static void burn(unsigned self) {
  const double before = clock_of(CLOCK_THREAD_CPUTIME_ID);
  double now;
  do {
    for (volatile int i = 0; i < 200000; ++i) {
    }
    now = clock_of(CLOCK_THREAD_CPUTIME_ID);
    if (now < before) abort();
  } while (now - before < kBurned);
  burned[self] = now;
  const double usage = of_usage(RUSAGE_THREAD);
  if (usage < now - 0.001) abort();
}

static void* run(void* argument) {
  const unsigned self = (unsigned)(long)argument;
  tid[self] = (pid_t)syscall(SYS_gettid);
  burn(self);
  pthread_barrier_wait(&barrier);
  if (ending && strcmp(ending, "last") == 0) {
    pthread_barrier_wait(&barrier);
    return NULL;
  }
  if (ending && self == kEnding - 1) {
    if (strcmp(ending, "thread") == 0) exit(3);
    if (strcmp(ending, "signal") == 0) raise(SIGTERM);
    if (strcmp(ending, "exec") == 0) execlp("true", "true", NULL);
  }
  pthread_barrier_wait(&barrier);
  return NULL;
}

static volatile sig_atomic_t warnings;

static void on_warning(int signal) {
  (void)signal;
  ++warnings;
}

static void* compute(void* nothing) {
  while (warnings == 0 && clock_of(CLOCK_THREAD_CPUTIME_ID) < 10)
    for (volatile int i = 0; i < 20 * 1000 * 1000 && warnings == 0; ++i) {
    }
  return nothing;
}

static int exceed(const char* how) {
  const int is_killed = strcmp(how, "killed") == 0;
  struct rlimit limit = {1, is_killed ? 2 : RLIM_INFINITY};
  if (setrlimit(RLIMIT_CPU, &limit) != 0) abort();
  if (is_killed) signal(SIGXCPU, SIG_IGN);
  if (strcmp(how, "warned") == 0) signal(SIGXCPU, on_warning);
  pthread_t other;
  pthread_create(&other, NULL, compute, NULL);
  pthread_join(other, NULL);
  if (getrlimit(RLIMIT_CPU, &limit) != 0) abort();
  printf("%d warnings, the next is %s\n", (int)warnings, limit.rlim_cur > 1 ? "later" : "due");
  return warnings == 0;
}

static volatile sig_atomic_t profiled, profile_is_on;

static void on_profile(int signal) {
  (void)signal;
  ++profiled;
}

static void* use_much(void* nothing) {
  while (!profile_is_on) {
  }
  const double before = clock_of(CLOCK_THREAD_CPUTIME_ID);
  while (clock_of(CLOCK_THREAD_CPUTIME_ID) < before + 1)
    for (volatile int i = 0; i < 200000; ++i) {
    }
  return nothing;
}

static void set_timer(int which, suseconds_t first_us, suseconds_t interval_us) {
  const struct itimerval timer = {{0, interval_us}, {0, first_us}};
  struct itimerval before;
  if (setitimer(which, &timer, &before) != 0) abort();
  expect(before.it_value.tv_sec == 0, "a timer before", (double)before.it_value.tv_sec, 0);
}

// How many signals come in a second depends on how often somebody looks, but not that some do: the
// thread that uses the time is another one than who is told, which waits.
static int profile(const char* when) {
  signal(SIGPROF, on_profile);
  const int is_before = strcmp(when, "before") == 0;
  if (is_before) set_timer(ITIMER_PROF, 300 * 1000, 100 * 1000);
  pthread_t other;
  pthread_create(&other, NULL, use_much, NULL);
  if (!is_before) set_timer(ITIMER_PROF, 300 * 1000, 100 * 1000);
  profile_is_on = 1;
  pthread_join(other, NULL);
  struct itimerval left;
  if (getitimer(ITIMER_PROF, &left) != 0) abort();
  expect(profiled > 0, "signals", (double)profiled, 1);
  expect(left.it_interval.tv_usec == 100 * 1000, "interval", (double)left.it_interval.tv_usec, 1e5);
  expect(left.it_value.tv_sec == 0 && left.it_value.tv_usec > 0 && left.it_value.tv_usec <= 1e5,
         "what is left", (double)left.it_value.tv_usec, 1e5);
  set_timer(ITIMER_PROF, 0, 0);
  const int told = profiled;
  burn(0);
  expect(profiled == told, "signals of no timer", (double)profiled, told);
  struct itimerval wrong = {{0, 0}, {0, 1000 * 1000}};
  expect(setitimer(ITIMER_PROF, &wrong, NULL) != 0, "a second of microseconds", 0, -1);
  printf("%d failures\n", failures);
  return failures != 0;
}

static int be_alarmed(void) {
  pthread_t other;
  pthread_create(&other, NULL, use_much, NULL);
  set_timer(ITIMER_VIRTUAL, 300 * 1000, 0);
  profile_is_on = 1;
  pthread_join(other, NULL);
  return 1;
}

static void* wait_for_nothing(void* barrier) {
  pthread_barrier_wait(barrier);
  return NULL;
}

// A process with threads is the parent.
static int use_of_child(char** command) {
  pthread_barrier_t end;
  pthread_barrier_init(&end, NULL, 2);
  pthread_t other;
  pthread_create(&other, NULL, wait_for_nothing, &end);
  const pid_t child = fork();
  if (child == 0) {
    execv(command[0], command);
    _exit(127);
  }
  siginfo_t info;
  struct rusage usage = {0};
  if (syscall(SYS_waitid, P_PID, child, &info, WEXITED, &usage) != 0) abort();
  printf("child %d: status %d, %ld s\n", info.si_pid == child, info.si_status,
         (long)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec));
  pthread_barrier_wait(&end);
  pthread_join(other, NULL);
  return 0;
}

int main(int count, char** arguments) {
  struct timespec begin;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  if (count < 2) return 2;
  for (const char* const* how = (const char*[]){"warned", "limited", "killed", NULL}; *how; ++how)
    if (strcmp(arguments[1], *how) == 0) return exceed(*how);
  if (strcmp(arguments[1], "profiled") == 0 && count > 2) return profile(arguments[2]);
  if (strcmp(arguments[1], "alarmed") == 0) return be_alarmed();
  if (strcmp(arguments[1], "child") == 0) return use_of_child(arguments + 2);
  if (strcmp(arguments[1], "calls") != 0) ending = arguments[1];
  threads = ending ? kEnding : (unsigned)atoi(arguments[2]);
  if (threads > kMost) return 2;
  pthread_barrier_init(&barrier, NULL, threads);
  for (unsigned i = 1; i < threads; ++i) pthread_create(&thread[i], NULL, run, (void*)(long)i);
  burn(0);
  pthread_barrier_wait(&barrier);
  if (ending && strcmp(ending, "exit") == 0) exit(3);
  if (ending && strcmp(ending, "last") == 0) {
    pthread_barrier_wait(&barrier);
    pthread_exit(NULL);
  }
  if (!ending) compare(seconds(begin) - 0.1);
  char command[1024];
  if (count > 3) snprintf(command, sizeof command, arguments[3], getpid(), tid[threads - 1]);
  if (count > 3 && system(command) != 0) ++failures;
  pthread_barrier_wait(&barrier);
  for (unsigned i = 1; i < threads; ++i) pthread_join(thread[i], NULL);
  const double before = clock_of(CLOCK_PROCESS_CPUTIME_ID);
  expect(before >= threads * kBurned, "when they have ended", before, threads * kBurned);
  printf("%d failures\n", failures);
  return failures != 0;
}
