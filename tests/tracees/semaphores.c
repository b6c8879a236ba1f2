/* System V semaphores are one for parent and children: values, waits, time limits, removal, undo,
 * interruption. SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <sys/ipc.h>
#include <sys/sem.h>
#include <time.h>

enum { kKey = 0x6b7267 };

union semun {
  int val;
  struct semid_ds* buf;
  unsigned short* array;
};

static int set_of(int count, int flags) {
  const int id = semget(kKey, count, flags | 0600);
  if (id < 0) fail("semget");
  return id;
}
static const char* outcome(int result) {
  return result < 0 ? strerror(errno) : "done";
}
static int operate(int id, int number, int op, int flags) {
  struct sembuf operation = {(unsigned short)number, (short)op, (short)flags};
  return semop(id, &operation, 1);
}
static void on_signal(int signal) {
  (void)signal;
}

__attribute__((noreturn)) static void child(void) {
  const int id = set_of(0, 0);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  say("values %d %d %d", semctl(id, 0, GETVAL), semctl(id, 1, GETVAL), semctl(id, 2, GETVAL));
  say("taken: %s", outcome(operate(id, 0, -4, 0)));
  wait_for_order();
  struct sembuf both[2] = {{0, -1, 0}, {1, 1, 0}};
  say("both: %s", outcome(semop(id, both, 2)));
  say("not now: %s", outcome(operate(id, 0, -1, IPC_NOWAIT)));
  struct timespec limit = {0, 50000000};
  struct sembuf take = {0, -1, 0};
  say("in time: %s", outcome(semtimedop(id, &take, 1, &limit)));
  wait_for_order();
  say("interrupted: %s", outcome(operate(id, 0, -1, 0)));
  say("undone at the end: %s", outcome(operate(id, 2, 7, SEM_UNDO)));
  wait_for_order();
  say("removed: %s", outcome(operate(id, 0, -1, 0)));
  exit(0);
}

/* Until so many wait for semaphore 0. */
static void wait_for_waiters(int id, int count) {
  while (semctl(id, 0, GETNCNT) != count) usleep(1000);
}

int main(int argc, char** argv) {
  const char* role = begin(argc, argv);
  if (role && !strcmp(role, "short")) {
    const int id = set_of(0, 0);
    return operate(id, 2, 5, SEM_UNDO) != 0 || semctl(id, 2, GETVAL) != 13;
  }
  if (role) child();
  const int id = set_of(3, IPC_CREAT | IPC_EXCL);
  printf("again: %s\n", outcome(semget(kKey, 3, IPC_CREAT | IPC_EXCL | 0600)));
  unsigned short values[3] = {3, 2, 1};
  semctl(id, 0, SETALL, (union semun){.array = values});

  struct child c = start_child("child", -1);
  puts(heard(&c));
  wait_for_waiters(id, 1);
  printf("give: %s\n", outcome(operate(id, 0, 1, 0)));
  puts(heard(&c));
  printf("last by the child: %d\n", semctl(id, 0, GETPID) == c.pid);
  order(&c);
  wait_for_waiters(id, 1);
  printf("give: %s\n", outcome(operate(id, 0, 1, 0)));
  for (int i = 0; i < 3; ++i) puts(heard(&c));
  semctl(id, 0, GETALL, (union semun){.array = values});
  printf("values %d %d %d\n", values[0], values[1], values[2]);
  order(&c);
  wait_for_waiters(id, 1);
  usleep(20000);
  kill(c.pid, SIGUSR1);
  puts(heard(&c));
  puts(heard(&c));
  printf("with what is to be undone: %d\n", semctl(id, 2, GETVAL));

  struct child other = start_child("short", -1);
  wait_and_print("short", other.pid, 0);
  order(&c);
  wait_for_waiters(id, 1);
  struct semid_ds stat;
  printf("stat: %s\n", outcome(semctl(id, 0, IPC_STAT, (union semun){.buf = &stat})));
  printf("semaphores %lu mode %o mine %d\n", (unsigned long)stat.sem_nsems, stat.sem_perm.mode,
         stat.sem_perm.cuid == geteuid());
  kill(c.pid, SIGSTOP);
  wait_and_print("stop", c.pid, WUNTRACED);
  kill(c.pid, SIGCONT);
  puts(heard(&c));
  wait_and_print("child", c.pid, 0);
  printf("undone: %d\n", semctl(id, 2, GETVAL));

  c = start_child("child", -1);
  puts(heard(&c));
  wait_for_waiters(id, 1);
  kill(c.pid, SIGKILL);
  wait_and_print("killed", c.pid, 0);
  wait_for_waiters(id, 0);

  c = start_child("child", -1);
  puts(heard(&c));
  wait_for_waiters(id, 1);
  printf("remove: %s\n", outcome(semctl(id, 0, IPC_RMID)));
  puts(heard(&c));
  printf("gone: %s\n", outcome(semctl(id, 0, GETVAL)));
  printf("gone: %s\n", outcome(semget(kKey, 3, 0600)));
  kill(c.pid, SIGKILL);
  wait_and_print("killed", c.pid, 0);
  return 0;
}
