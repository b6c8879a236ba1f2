// Processes that work together by System V semaphores and message queues and by POSIX message
// queues, on different nodes where krg_migrate works: work comes by one queue, answers go by
// another, sums are a message that is taken out, changed and put back under a semaphore. Prints a
// line for each step, the same whatever interrupts it. Needs a file "end" to come to its end.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc_calls.h"

enum { kWorkers = 4, kSteps = 40, kLast = 35, kSums = 90, kHeld = 1, kGiven = 2, kIdle = 3 };

static int messages;
static int begins[2];  // a pipe, closed when all are where they are to be

// The sum must be there: the semaphore keeps all others away.
static void work(int me) {
  for (;;) {
    const uint64_t number = receive(messages, me + 1, 0);
    if (number == 0) exit(10 + me);
    change(0, -1, SEM_UNDO);
    const uint64_t sum = receive(messages, kSums, IPC_NOWAIT);
    pause_ms(3);
    send(messages, kSums, sum + mix(number));
    change(0, 1, SEM_UNDO);
    const uint64_t answer = mix(number + 1);
    must(mq_send(replies, (const char*)&answer, sizeof answer, (unsigned)me) == 0, "mq_send");
  }
}

// What it does to semaphores is undone when it is killed.
static void hold(void) {
  change(kHeld, -1, SEM_UNDO);
  change(kGiven, 3, SEM_UNDO);
  for (;;) pause();
}

// Waits in semop from the beginning to the end.
static void wait_long(void) {
  change(kIdle, -1, 0);
  exit(33);
}

static void make_objects(key_t key) {
  semaphores = semget(key, 4, IPC_CREAT | IPC_EXCL | 0640);
  messages = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
  standing = msgget(IPC_PRIVATE, 0600);
  must(semaphores >= 0 && messages >= 0 && standing >= 0, "objects");
  unsigned short values[4] = {1, 1, 10, 0};
  must(semctl(semaphores, 0, SETALL, values) == 0, "SETALL");
  send(messages, kSums, 0);
  make_queues();
}

static void tell_the_rest(key_t key) {
  must(semget(key, 4, 0) == semaphores && msgget(key, 0) == messages, "their identifiers");
  tell_queues();
  struct msqid_ds state;
  struct semid_ds set;
  must(msgctl(standing, IPC_STAT, &state) == 0 && semctl(semaphores, 0, IPC_STAT, &set) == 0,
       "IPC_STAT");
  printf("%lu %o\n", state.msg_qnum, set.sem_perm.mode);
}

static pid_t start(void (*what)(int), int me, void (*other)(void)) {
  fflush(stdout);
  const pid_t child = fork();
  if (child != 0) return child;
  char none;
  close(begins[1]);
  must(read(begins[0], &none, 1) == 0, "read");
  close(begins[0]);
  if (what) what(me);
  other();
  exit(9);
}

// Where it cannot be, it stays.
static void move(pid_t pid, int node) {
  char command[100];
  snprintf(command, sizeof command, "krg_migrate %d %d >/dev/null 2>&1 || :", pid, node);
  must(system(command) == 0, "sh");
}

static void compute(void) {
  uint64_t state = 1;
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < kWorkers; ++i) send(messages, i + 1, state + (uint64_t)i);
    uint64_t sum = 0;
    for (int i = 0; i < kWorkers; ++i) {
      char text[100];
      uint64_t answer;
      must(mq_receive(replies, text, sizeof text, NULL) == sizeof answer, "mq_receive");
      memcpy(&answer, text, sizeof answer);
      sum += answer;
    }
    state = mix(sum) | 1;
    printf("%d %lx\n", step, (unsigned long)sum);
    fflush(stdout);
    pause_ms(15);
    while (step == kLast && access("end", F_OK) != 0) pause_ms(10);
  }
}

int main(void) {
  const key_t key = 0x6b000000 + getpid();
  make_objects(key);
  must(pipe(begins) == 0, "pipe");
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i) workers[i] = start(work, i, NULL);
  const pid_t waiter = start(NULL, 0, wait_long), holder = start(NULL, 0, hold);
  for (int i = 0; i < kWorkers; ++i) move(workers[i], i % 3);
  move(waiter, 1);
  move(holder, 2);
  close(begins[0]);
  close(begins[1]);
  change(kGiven, -13, 0);  // it holds
  change(kGiven, 13, 0);
  close(open("ready", O_CREAT | O_WRONLY, 0644));
  compute();
  must(semctl(semaphores, kHeld, GETVAL) == 0 && semctl(semaphores, kGiven, GETVAL) == 13,
       "values");
  change(kGiven, -2, 0);
  kill(holder, SIGKILL);
  must(waitpid(holder, NULL, 0) == holder, "waitpid");
  printf("undone: %d %d\n", semctl(semaphores, kHeld, GETVAL), semctl(semaphores, kGiven, GETVAL));
  int status = 0;
  must(waitpid(waiter, &status, WNOHANG) == 0, "it waits");
  change(kIdle, 1, 0);
  must(waitpid(waiter, &status, 0) == waiter && WEXITSTATUS(status) == 33, "it has waited");
  for (int i = 0; i < kWorkers; ++i) {
    send(messages, i + 1, 0);
    must(waitpid(workers[i], &status, 0) == workers[i], "waitpid");
    printf("worker %d ends with %d\n", i, WEXITSTATUS(status));
  }
  printf("sum %lx\n", (unsigned long)receive(messages, kSums, IPC_NOWAIT));
  tell_the_rest(key);
  char name[64];
  snprintf(name, sizeof name, "/krg-replies.%d", getpid());
  must(mq_unlink(name) == 0 && semctl(semaphores, 0, IPC_RMID) == 0 &&
           msgctl(messages, IPC_RMID, NULL) == 0 && msgctl(standing, IPC_RMID, NULL) == 0,
       "removing them");
  return 0;
}
