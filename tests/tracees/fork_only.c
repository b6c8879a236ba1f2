/* Children that fork without exec: what a child has of its parent, and what its parent has of it.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <math.h>
#include <sys/mman.h>
#include <sys/time.h>

enum { kHeapBytes = 3 << 20, kPage = 4096 };

static const char* parent_host;
static int in_data = 17;
static __thread int in_tls = 23;
static char in_bss[3 * kPage];
static volatile sig_atomic_t caught;

static void on_signal(int signal) {
  caught = signal;
}

/* In a child. */
static void tell_where(void) {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  fputs(strcmp(parent_host, name) ? "elsewhere\n" : "here\n", stderr);
}

static pid_t forked(int (*run)(void)) {
  const pid_t pid = fork();
  if (pid < 0) fail("fork");
  if (pid > 0) return pid;
  tell_where();
  exit(run());
}
static void fork_and_wait(const char* what, int (*run)(void)) {
  wait_and_print(what, forked(run), 0);
}

static unsigned checksum(const char* bytes, size_t count) {
  unsigned sum = 1;
  for (size_t i = 0; i < count; ++i) sum = sum * 31 + (unsigned char)bytes[i];
  return sum;
}

/* --- memory --- */

static char *heap, *mapped, *file_copy;
static unsigned heap_sum;
static volatile double in_registers;

static int deep(int levels) {
  volatile char frame[2048];
  frame[0] = (char)levels;
  return levels == 0 ? 0 : deep(levels - 1) + frame[0] - (char)levels;
}

static int use_memory(void) {
  if (in_data != 18 || in_tls != 24 || in_bss[kPage] != 'b' || in_bss[0] != 0) return 1;
  if (checksum(heap, kHeapBytes) != heap_sum) return 2;
  if (mapped[0] != 'm' || mapped[5 * kPage] != 0) return 3;
  if (memcmp(file_copy, "C ", 2) != 0 || memcmp(file_copy + 2, "line", 4) != 0) return 4;
  in_data = in_tls = 0;
  memset(heap, 'x', kHeapBytes);
  memset(mapped, 'x', 8 * kPage);
  file_copy[0] = 'x';
  char* more = malloc(6 << 20);
  if (!more) return 5;
  memset(more, 1, 6 << 20);
  if (deep(500) != 0) return 6;
  free(more);
  munmap(mapped, 8 * kPage);
  return in_registers == sqrt(2.0) ? 0 : 7;
}

static void try_memory(int file) {
  in_data = 18;
  in_tls = 24;
  in_bss[kPage] = 'b';
  heap = malloc(kHeapBytes);
  for (int i = 0; i < kHeapBytes; ++i) heap[i] = (char)(i * 7 + i / 1000);
  heap_sum = checksum(heap, kHeapBytes);
  mapped = mmap(NULL, 8 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  file_copy = mmap(NULL, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  if (mapped == MAP_FAILED || file_copy == MAP_FAILED) fail("mmap");
  mapped[0] = 'm';
  file_copy[0] = 'C';
  file_copy[1] = ' ';
  in_registers = sqrt(2.0);
  fork_and_wait("memory", use_memory);
  printf("the parent's: %d %d %d %c %c\n", in_data, in_tls, checksum(heap, kHeapBytes) == heap_sum,
         mapped[0], file_copy[0]);
}

/* --- descriptors --- */

static int shared_file, pipe_ends[2], closed_on_exec;

static int use_descriptors(void) {
  char bytes[6] = "";
  if (read(shared_file, bytes, 5) != 5) return 1;
  if (dprintf(pipe_ends[1], "%s %d\n", bytes, fcntl(closed_on_exec, F_GETFD)) < 0) return 2;
  return dprintf(closed_on_exec, "written\n") < 0 ? 3 : 0;
}

static void try_descriptors(const char* path) {
  char bytes[64] = "";
  shared_file = open(path, O_RDONLY);
  closed_on_exec = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (shared_file < 0 || closed_on_exec < 0 || pipe(pipe_ends) != 0) fail("open");
  if (read(shared_file, bytes, 5) != 5) fail("read");
  printf("read: %s\n", bytes);
  fork_and_wait("descriptors", use_descriptors);
  const ssize_t length = read(pipe_ends[0], bytes, sizeof bytes - 1);
  bytes[length > 0 ? length : 0] = '\0';
  printf("from the child: %s", bytes);
  printf("the offset: %ld\n", (long)lseek(shared_file, 0, SEEK_CUR));
  close(pipe_ends[0]);
  close(pipe_ends[1]);
  close(shared_file);
  close(closed_on_exec);
}

/* --- signals --- */

static int ready[2];

static int wait_for_signals(void) {
  sigset_t pending, mask;
  sigpending(&pending);
  sigprocmask(SIG_BLOCK, NULL, &mask);
  printf("pending %d, blocked %d, alarm %u\n", sigismember(&pending, SIGUSR2),
         sigismember(&mask, SIGUSR2), alarm(0));
  if (write(ready[1], "r", 1) != 1) return 1;
  while (!caught) pause();
  printf("caught %d\n", (int)caught);
  raise(SIGTERM);
  return 9;
}

static void try_signals(void) {
  char byte;
  sigset_t blocked;
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, NULL);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  sigprocmask(SIG_BLOCK, &blocked, NULL);
  raise(SIGUSR2);
  alarm(1000);
  if (pipe(ready) != 0) fail("pipe");
  const pid_t child = forked(wait_for_signals);
  if (read(ready[0], &byte, 1) != 1) fail("read");
  kill(child, SIGUSR1);
  wait_and_print("signals", child, 0);
  alarm(0);
}

/* --- processes --- */

static pid_t parent;

static int tell_names(void) {
  return getppid() == parent && getpid() != parent && getpgrp() == getpgid(parent) &&
                 getsid(0) == getsid(parent)
             ? 0
             : 1;
}
static int grandchild(void) {
  return 5;
}
static int have_children(void) {
  int status, sum = 0;
  for (int i = 0; i < 3; ++i) forked(grandchild);
  while (wait(&status) > 0) sum += WEXITSTATUS(status);
  return sum;
}
static int stop_and_go_on(void) {
  raise(SIGSTOP);
  return 3;
}
static int crash(void) {
  raise(SIGSEGV);
  return 1;
}
static int spin(void) {
  while (pause() < 0) {
  }
  return 1;
}
static int exec_then(void) {
  execl("/bin/sh", "sh", "-c", "exit 33", (char*)NULL);
  return 1;
}

static void try_processes(void) {
  parent = getpid();
  fork_and_wait("names", tell_names);
  fork_and_wait("children", have_children);
  pid_t child = forked(stop_and_go_on);
  wait_and_print("stop", child, WUNTRACED);
  kill(child, SIGCONT);
  wait_and_print("go on", child, 0);
  fork_and_wait("crash", crash);
  child = forked(spin);
  kill(child, SIGKILL);
  wait_and_print("kill", child, 0);
  fork_and_wait("exec", exec_then);
  for (int i = 0; i < 4; ++i) forked(spin);
  signal(SIGTERM, SIG_IGN);
  kill(0, SIGTERM);
  int status, killed = 0;
  while (wait(&status) > 0) killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM;
  printf("killed with the group: %d\n", killed);
}

int main(void) {
  char name[256] = "", path[] = "/tmp/krg-fork-only-XXXXXX";
  setvbuf(stdout, NULL, _IONBF, 0);
  gethostname(name, sizeof name - 1);
  parent_host = name;
  signal(SIGTERM, SIG_DFL);
  setpgid(0, 0);
  const int file = mkstemp(path);
  if (file < 0 || write(file, "A line of a file.\n", 18) != 18) fail(path);
  try_memory(file);
  close(file);
  try_descriptors(path);
  try_signals();
  try_processes();
  unlink(path);
  return 0;
}
