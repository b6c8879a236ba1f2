// Processes that work together by System V semaphores, message queues and segments and by POSIX
// message queues. Prints a line for each step, the same whatever interrupts it. Needs a file "end"
// to come to its end.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ipc_calls.h"

enum { kWorkers = 2, kSteps = 40, kLast = 35, kBytes = 100000, kHeld = 1, kGiven = 2 };

struct shared {
  uint64_t total, count;
};

static int messages, named, removed, apart;

static void* attach(int id, int flags) {
  void* memory = shmat(id, NULL, flags);
  must(memory != (void*)-1, "shmat");
  return memory;
}

static uint64_t sum_of(const unsigned char* bytes) {
  uint64_t sum = 0;
  for (int i = 0; i < kBytes; ++i) sum = sum * 31 + bytes[i];
  return sum;
}

static void work(int me, struct shared* one, struct shared* other) {
  const unsigned char* read_only = attach(apart, SHM_RDONLY);
  const uint64_t sum = sum_of(read_only);
  for (;;) {
    const uint64_t number = receive(messages, me + 1, 0);
    if (number == 0) exit(10 + me);
    if (sum_of(read_only) != sum) exit(99);
    change(0, -1, SEM_UNDO);
    const uint64_t total = one->total, count = other->count;
    pause_ms(3);
    one->total = total + mix(number);
    other->count = count + 1;
    change(0, 1, SEM_UNDO);
    const uint64_t answer = mix(number + 1);
    must(mq_send(replies, (const char*)&answer, sizeof answer, (unsigned)me) == 0, "mq_send");
  }
}

static void* wait_for_ever(void* unused) {
  for (;;) pause();
  return unused;
}

// What it does to semaphores is undone when it is killed.
static void hold(void) {
  pthread_t thread;
  must(pthread_create(&thread, NULL, wait_for_ever, NULL) == 0, "pthread_create");
  change(kHeld, -1, SEM_UNDO);
  change(kGiven, 3, SEM_UNDO);
  close(open("ready", O_CREAT | O_WRONLY, 0644));
  wait_for_ever(NULL);
}

static void make_objects(key_t key) {
  semaphores = semget(key, 3, IPC_CREAT | IPC_EXCL | 0640);
  messages = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
  standing = msgget(IPC_PRIVATE, 0600);
  named = shmget(key, sizeof(struct shared), IPC_CREAT | IPC_EXCL | 0600);
  removed = shmget(IPC_PRIVATE, 3 * 4096, 0600);
  apart = shmget(IPC_PRIVATE, kBytes, 0600);
  must(
      semaphores >= 0 && messages >= 0 && standing >= 0 && named >= 0 && removed >= 0 && apart >= 0,
      "objects");
  unsigned short values[3] = {1, 1, 10};
  must(semctl(semaphores, 0, SETALL, values) == 0, "SETALL");
  unsigned char* bytes = attach(apart, 0);
  for (int i = 0; i < kBytes; ++i) bytes[i] = (unsigned char)mix((uint64_t)i);
  shmdt(bytes);
  make_queues();
}

static void tell_the_rest(key_t key) {
  must(semget(key, 3, 0) == semaphores && msgget(key, 0) == messages && shmget(key, 1, 0) == named,
       "their identifiers");
  tell_queues();
  struct msqid_ds state;
  struct semid_ds set;
  must(msgctl(standing, IPC_STAT, &state) == 0 && semctl(semaphores, 0, IPC_STAT, &set) == 0,
       "IPC_STAT");
  printf("%lu %o %lx\n", state.msg_qnum, set.sem_perm.mode,
         (unsigned long)sum_of(attach(apart, SHM_RDONLY)));
}

int main(void) {
  const key_t key = 0x6b000000 + getpid();
  make_objects(key);
  struct shared *one = attach(named, 0), *other = attach(removed, 0);
  must(shmctl(removed, IPC_RMID, NULL) == 0, "IPC_RMID");
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i)
    if ((workers[i] = fork()) == 0) work(i, one, other);
  const pid_t holder = fork();
  if (holder == 0) hold();
  uint64_t state = 1;
  for (int step = 0; step < kSteps; ++step) {
    for (int i = 0; i < 4; ++i) send(messages, i % kWorkers + 1, state + (uint64_t)i);
    uint64_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      char text[100];
      uint64_t answer;
      must(mq_receive(replies, text, sizeof text, NULL) == sizeof answer, "mq_receive");
      memcpy(&answer, text, sizeof answer);
      sum += answer;
    }
    state = mix(sum) | 1;
    printf("%d %lx %lx %lu\n", step, (unsigned long)sum, (unsigned long)one->total,
           (unsigned long)other->count);
    fflush(stdout);
    pause_ms(15);
    while (step == kLast && access("end", F_OK) != 0) pause_ms(10);
  }
  change(kGiven, -2, 0);
  must(semctl(semaphores, kHeld, GETVAL) == 0 && semctl(semaphores, kGiven, GETVAL) == 11,
       "values");
  kill(holder, SIGKILL);
  must(waitpid(holder, NULL, 0) == holder, "waitpid");
  printf("undone: %d %d\n", semctl(semaphores, kHeld, GETVAL), semctl(semaphores, kGiven, GETVAL));
  int status = 0;
  for (int i = 0; i < kWorkers; ++i) {
    send(messages, i + 1, 0);
    must(waitpid(workers[i], &status, 0) == workers[i], "waitpid");
    printf("worker %d ends with %d\n", i, WEXITSTATUS(status));
  }
  tell_the_rest(key);
  struct shmid_ds memory;
  must(shmctl(removed, IPC_STAT, &memory) == 0 && memory.shm_nattch == 1, "a removed segment");
  must(shmdt(other) == 0 && shmctl(removed, IPC_STAT, &memory) != 0, "it is gone");
  char name[64];
  snprintf(name, sizeof name, "/krg-replies.%d", getpid());
  must(mq_unlink(name) == 0 && semctl(semaphores, 0, IPC_RMID) == 0 &&
           msgctl(messages, IPC_RMID, NULL) == 0 && msgctl(standing, IPC_RMID, NULL) == 0 &&
           shmctl(named, IPC_RMID, NULL) == 0 && shmctl(apart, IPC_RMID, NULL) == 0,
       "removing them");
  return 0;
}
