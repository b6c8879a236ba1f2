// A team and signals. "caught": signals arrive while members wait for each other; "hold": members
// wait until a signal ends the process; "shared": they count in memory that children share;
// "served": memory that keeps the process on one node.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <omp.h>

#include "expect.h"

static volatile sig_atomic_t caught;

static void count_signal(int signal) {
  (void)signal;
  ++caught;
}

static void work(void) {
  long sum = 0;
#pragma omp parallel reduction(+ : sum)
  for (int i = 0; i < 150; ++i) {
#pragma omp for schedule(dynamic, 2)
    for (int j = 0; j < 16; ++j) ++sum;
#pragma omp critical
    ++sum;
  }
  expect(sum == 150 * (16 + omp_get_max_threads()), "sum");
}

enum { kCounts = 50 };

static pid_t count_in_child(int* counted) {
  const pid_t child = fork();
  if (child != 0) return child;
  for (int i = 0; i < kCounts; ++i) __atomic_add_fetch(counted, 1, __ATOMIC_SEQ_CST);
  _exit(0);
}

// One child is made before the threads are spread, one after that.
static void share(void) {
  int* counted = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  expect(counted != MAP_FAILED, "shared memory");
  const pid_t before = count_in_child(counted);
  expect(before > 0, "a child");
#pragma omp parallel
  for (int i = 0; i < kCounts; ++i) {
    __atomic_add_fetch(counted, 1, __ATOMIC_SEQ_CST);
    if (i % 10 == 0) {
#pragma omp barrier
    }
  }
  const pid_t after = count_in_child(counted);
  expect(after > 0, "a child of threads that are spread");
  expect(waitpid(before, NULL, 0) == before, "the child's end");
  expect(waitpid(after, NULL, 0) == after, "the other child's end");
  expect(*counted == kCounts * (2 + omp_get_max_threads()), "counts");
  work();
}

static void serve(void) {
  const long page = sysconf(_SC_PAGESIZE);
  char* served = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
  struct uffdio_api api = {.api = UFFD_API};
  expect(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0, "userfaultfd");
  struct uffdio_register range = {.range = {(unsigned long)served, page},
                                  .mode = UFFDIO_REGISTER_MODE_MISSING};
  expect(ioctl(fd, UFFDIO_REGISTER, &range) == 0, "UFFDIO_REGISTER");
  work();
}

int main(int count, char** arguments) {
  const char* what = count > 1 ? arguments[1] : "";
  if (strcmp(what, "hold") == 0) {
#pragma omp parallel
    {
      if (omp_get_thread_num() == 0) {
        puts("held");
        fflush(stdout);
      }
      while (omp_get_thread_num() == 1) pause();
#pragma omp barrier
    }
  } else if (strcmp(what, "caught") == 0) {
    const struct sigaction action = {.sa_handler = count_signal, .sa_flags = SA_RESTART};
    const struct itimerval often = {{0, 10000}, {0, 10000}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 100 && caught < 5; ++i) work();
    expect(caught >= 5, "caught");
  } else if (strcmp(what, "shared") == 0) {
    share();
  } else {
    serve();
  }
  return result();
}
