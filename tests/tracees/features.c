/* One small program per thing that a process can have when it moves. "features NAME MS" does for MS
 * milliseconds what NAME says and prints what came of it, the same wherever it was meanwhile;
 * "features" prints the names. In the folder that it may write in.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>

#include "features.h"

int64_t end_ns;

/* Vector registers and the rounding mode hold their values through computation and calls. */
static void registers(void) {
  uint64_t in[8], out[8];
  for (int i = 0; i < 8; ++i) in[i] = 0x0123456789abcdefull * (uint64_t)(i + 3);
  while (goes_on()) {
    __asm__ volatile(
        "movdqu (%0), %%xmm12\n movdqu 16(%0), %%xmm13\n movdqu 32(%0), %%xmm14\n movdqu 48(%0), "
        "%%xmm15\n mov $3000000, %%rcx\n 1: dec %%rcx\n jnz 1b\n mov $39, %%eax\n syscall\n"
        "movdqu %%xmm12, (%1)\n movdqu %%xmm13, 16(%1)\n movdqu %%xmm14, 32(%1)\n movdqu %%xmm15, "
        "48(%1)\n"
        :
        : "r"(in), "r"(out)
        : "rax", "rcx", "r11", "xmm12", "xmm13", "xmm14", "xmm15", "memory");
    check(memcmp(in, out, sizeof in) == 0, "vector registers");
  }
  puts("vector registers kept");
}

/* None of them ends early. */
static void sleeps(void) {
  while (goes_on()) {
    int64_t before = now_ns();
    rest(60);
    check(now_ns() - before >= 60000000, "nanosleep");
    before = now_ns();
    struct timeval time = {0, 60000};
    if (select(0, NULL, NULL, NULL, &time) == 0) check(now_ns() - before >= 60000000, "select");
    int pipes[2];
    if (pipe(pipes) != 0) fail("pipe");
    struct pollfd wanted = {.fd = pipes[0], .events = POLLIN};
    before = now_ns();
    check(poll(&wanted, 1, 60) == 0, "poll");
    check(now_ns() - before >= 59000000, "poll");
    close(pipes[0]);
    close(pipes[1]);
    before = now_ns();
    usleep(60000);
    check(now_ns() - before >= 60000000, "usleep");
    uint32_t word = 0;
    const struct timespec limit = {0, 60000000};
    before = now_ns();
    check(syscall(SYS_futex, &word, 0x80 /* private wait */, 0, &limit, NULL, 0) == -1 &&
              errno == ETIMEDOUT,
          "futex");
    check(now_ns() - before >= 60000000, "futex");
  }
  puts("slept long enough");
}

/* Each thread is in one wait with a relative limit: it ends when that is over, however often it
 * was interrupted. */
static int64_t wait_ms;
static void* waits_once(void* how) {
  const int64_t begun = now_ns();
  const struct timespec limit = {wait_ms / 1000, wait_ms % 1000 * 1000000};
  uint32_t word = 0;
  int got = 0;
  switch ((intptr_t)how) {
    case 0:
      got = poll(NULL, 0, (int)wait_ms);
      break;
    case 1:
      got = (int)syscall(SYS_futex, &word, 0x80 /* private wait */, 0, &limit, NULL, 0);
      check(got == -1 && errno == ETIMEDOUT, "futex");
      return NULL;
    case 2:
      got = nanosleep(&limit, NULL);
      break;
    case 3:
      got = epoll_wait(epoll_create1(0), &(struct epoll_event){0}, 1, (int)wait_ms);
      break;
    default:
      got = (int)syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &limit, NULL);
  }
  check(got == 0, "wait");
  check(now_ns() - begun >= wait_ms * 1000000, "a wait that ended early");
  return NULL;
}
static void waits(void) {
  pthread_t made[5];
  wait_ms = (end_ns - now_ns()) / 2000000;
  for (intptr_t i = 0; i < 5; ++i) pthread_create(&made[i], NULL, waits_once, (void*)i);
  for (int i = 0; i < 5; ++i) pthread_join(made[i], NULL);
  puts("all waits ended");
}

enum { kThreads = 6 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn;
static __thread long own_turns;
static void* takes_turns(void* number) {
  for (;;) {
    pthread_mutex_lock(&lock);
    while (turn % kThreads != (int)(intptr_t)number && goes_on()) {
      struct timespec until;
      clock_gettime(CLOCK_REALTIME, &until);
      until.tv_sec += 1;
      pthread_cond_timedwait(&turned, &lock, &until);
    }
    const int is_over = !goes_on();
    if (!is_over) ++turn, ++own_turns;
    pthread_cond_broadcast(&turned);
    pthread_mutex_unlock(&lock);
    if (is_over) return (void*)own_turns;
    usleep(500);
  }
}
static void threads(void) {
  pthread_t made[kThreads];
  long sum = 0;
  for (intptr_t i = 0; i < kThreads; ++i) pthread_create(&made[i], NULL, takes_turns, (void*)i);
  for (int i = 0; i < kThreads; ++i) {
    void* turns;
    pthread_join(made[i], &turns);
    sum += (long)turns;
  }
  check(sum == turn && turn > kThreads, "turns");
  puts("all turns counted");
}

/* Queued signals come in order with their values, handlers run on their stack. */
static volatile sig_atomic_t next_value, is_right = 1;
static char* alternate;
static void on_value(int number, siginfo_t* info, void* context) {
  char here;
  if (info->si_value.sival_int != next_value++ || number != SIGRTMIN + 1 || !context) is_right = 0;
  if (&here < alternate || &here >= alternate + 65536) is_right = 0;
  rest(2);
}
static void signals(void) {
  alternate = malloc(65536);
  const stack_t stack = {.ss_sp = alternate, .ss_size = 65536};
  sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_sigaction = on_value, .sa_flags = SA_SIGINFO | SA_ONSTACK};
  sigaction(SIGRTMIN + 1, &action, NULL);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGRTMIN + 1);
  while (goes_on()) {
    sigprocmask(SIG_BLOCK, &set, NULL);
    next_value = 0;
    for (int i = 0; i < 10; ++i) sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
    rest(40);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    check(is_right && next_value == 10, "queued signals");
  }
  puts("all signals in order");
}

static volatile sig_atomic_t real_ticks, posix_ticks;
static void on_tick(int number) {
  if (number == SIGALRM) ++real_ticks;
  if (number == SIGUSR1) ++posix_ticks;
}
static void timers(void) {
  signal(SIGALRM, on_tick);
  signal(SIGUSR1, on_tick);
  const struct itimerval period = {{0, 20000}, {0, 20000}};
  setitimer(ITIMER_REAL, &period, NULL);
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) fail("timer_create");
  const struct itimerspec every = {{0, 20000000}, {0, 20000000}};
  timer_settime(timer, 0, &every, NULL);
  while (goes_on()) pause();
  for (int i = 0; i < 3; ++i) pause();
  /* A machine that is busy, or moves it all the time, may have let it tick seldom. */
  for (int i = 0; i < 1000 && (real_ticks <= 5 || posix_ticks <= 5); ++i) rest(20);
  check(real_ticks > 5 && posix_ticks > 5, "ticks");
  puts("timers tick");
}

/* An alarm comes when its time is over, and tells what is left of it. */
static void alarms(void) {
  signal(SIGALRM, on_tick);
  while (goes_on()) {
    real_ticks = 0;
    const int64_t before = now_ns();
    check(alarm(100) == 0, "alarm");
    const unsigned left = alarm(1);
    check(left > 60 && left <= 100, "what is left of an alarm");
    while (real_ticks == 0) rest(20);
    check(now_ns() - before >= 1000000000, "an alarm that came early");
    check(alarm(0) == 0, "no alarm");
  }
  puts("all alarms came");
}

/* What is asked of the kernel about the process itself. */
static void settings(void) {
  const struct rlimit limit = {333, 333};
  setrlimit(RLIMIT_NOFILE, &limit);
  if (nice(3) < 0) fail("nice");
  umask(0137);
  personality(ADDR_NO_RANDOMIZE);
  prctl(PR_SET_NAME, "renamed");
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  if (chdir("/usr") != 0 || setpgid(0, 0) != 0) fail("settings");
  const pid_t pid = getpid(), parent = getppid(), session = getsid(0);
  while (goes_on()) {
    struct rlimit found;
    char name[16], where[64];
    int subreaper = 0;
    getrlimit(RLIMIT_NOFILE, &found);
    prctl(PR_GET_NAME, name);
    prctl(PR_GET_CHILD_SUBREAPER, &subreaper);
    const mode_t mask = umask(0137);
    check(found.rlim_cur == 333 && getpriority(PRIO_PROCESS, 0) == 3 && mask == 0137,
          "limit, nice, umask");
    check(personality(0xffffffff) & ADDR_NO_RANDOMIZE, "personality");
    check(strcmp(name, "renamed") == 0 && subreaper == 1, "prctl");
    check(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no_new_privs");
    check(getcwd(where, sizeof where) && strcmp(where, "/usr") == 0, "folder");
    check(getpid() == pid && getppid() == parent && getsid(0) == session && getpgrp() == pid,
          "identity");
    rest(3);
  }
  puts("settings kept");
}

/* Children made before and after moves, waited for in every way. */
static void children(void) {
  for (int round = 0; goes_on(); ++round) {
    const pid_t first = fork();
    if (first == 0) {
      usleep(20000);
      _exit(round % 100);
    }
    const pid_t second = fork();
    if (second == 0) {
      raise(SIGKILL);
      _exit(0);
    }
    check(first > 0 && second > 0, "fork");
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(first, &status, 0)) < 0 && errno == EINTR) {
    }
    check(ended == first && WIFEXITED(status) && WEXITSTATUS(status) == round % 100, "first child");
    while ((ended = waitpid(-1, &status, 0)) < 0 && errno == EINTR) {
    }
    check(ended == second && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "second child");
    check(waitpid(-1, &status, WNOHANG) == -1 && errno == ECHILD, "no more children");
  }
  puts("all children waited for");
}

static const struct {
  const char* name;
  void (*run)(void);
} kFeatures[] = {{"registers", registers}, {"sleeps", sleeps},
                 {"threads", threads},     {"signals", signals},
                 {"timers", timers},       {"files", files},
                 {"pipes", pipes},         {"sockets", sockets},
                 {"packets", packets},     {"tcp", tcp},
                 {"flocks", flocks},       {"listening", listening},
                 {"memfds", memfds},       {"waits", waits},
                 {"mappings", mappings},   {"settings", settings},
                 {"children", children},   {"record_locks", record_locks},
                 {"inotify", inotify},     {"events", events},
                 {"pidfds", pidfds},       {"alarms", alarms},
                 {"fifos", fifos},         {"shared_memory", shared_memory},
                 {"ttys", ttys},           {"stopped", stopped}};

int main(int argc, char** argv) {
  const size_t count = sizeof kFeatures / sizeof kFeatures[0];
  for (size_t i = 0; argc < 3 && i < count; ++i) puts(kFeatures[i].name);
  if (argc < 3) return 0;
  setvbuf(stdout, NULL, _IOLBF, 0);
  end_ns = now_ns() + atoll(argv[2]) * 1000000;
  for (size_t i = 0; i < count; ++i)
    if (strcmp(kFeatures[i].name, argv[1]) == 0) {
      kFeatures[i].run();
      return 0;
    }
  return 2;
}
