// System calls that krgd answers, with all that they read and write in one page, which other
// writers (threads, or processes that share the memory) write all the time: none fails, each has
// its result, nobody's writes are lost. Each writer makes all of the calls, in turn; before each
// one another one has written the page last, so that it is on that one's node.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kWriters = 4, kTurns = 2 };
struct answers {
  long written[kWriters][2];  // by each writer, the words around what the calls write
  char name[32];
  struct sembuf operation;
  struct {
    long type;
    char text[16];
  } sent, got;
  union {
    cpu_set_t mask;
    struct tms times;
    struct sysinfo info;
    struct rusage usage;
    struct rlimit limit;
    struct semid_ds set;
    struct msqid_ds queue;
    struct shmid_ds segment;
    struct mq_attr attributes;
    siginfo_t child;
  } out;
  unsigned short values[2];
  int status;
  unsigned priority;
  struct timespec long_ago;
  long last;
};
static struct answers* page;
static int failures, semaphores, queue, segment;
static mqd_t messages;
static int* stop;  // of each turn, in a page that changes once a turn

static void expect(int good, const char* what) {
  if (good) return;
  printf("%s: %s\n", what, strerror(errno));
  __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
}

static pid_t child(void) {
  char* const nothing[] = {"true", NULL};
  const pid_t pid = vfork();
  if (pid == 0) {
    execvp("true", nothing);
    _exit(127);
  }
  return pid;
}

static void queues(void) {
  page->sent.type = 3;
  strcpy(page->sent.text, "a message");
  memset(&page->got, 0, sizeof page->got);
  expect(msgsnd(queue, &page->sent, sizeof page->sent.text, 0) == 0, "msgsnd");
  expect(msgrcv(queue, &page->got, sizeof page->got.text, 0, IPC_NOWAIT) == sizeof page->got.text,
         "msgrcv");
  expect(page->got.type == 3 && strcmp(page->got.text, "a message") == 0, "what msgrcv got");
  expect(msgctl(queue, IPC_STAT, &page->out.queue) == 0 && page->out.queue.msg_qnum == 0, "msgctl");
  memset(&page->got, 0, sizeof page->got);
  expect(mq_send(messages, page->sent.text, 5, 2) == 0, "mq_send");
  expect(mq_timedreceive(messages, page->got.text, sizeof page->got.text, &page->priority,
                         &page->long_ago) == 5 &&
             memcmp(page->got.text, "a mes\0", 6) == 0 && page->priority == 2,
         "a message of mq_timedreceive");
  expect(
      mq_timedreceive(messages, page->got.text, sizeof page->got.text, NULL, &page->long_ago) < 0 &&
          errno == ETIMEDOUT,
      "mq_timedreceive");
  expect(mq_getattr(messages, &page->out.attributes) == 0 && page->out.attributes.mq_maxmsg == 4,
         "mq_getattr");
}

static void semaphore(void) {
  page->operation = (struct sembuf){.sem_op = 2, .sem_flg = IPC_NOWAIT};
  expect(semop(semaphores, &page->operation, 1) == 0, "semop");
  page->operation.sem_op = -2;
  expect(semtimedop(semaphores, &page->operation, 1, NULL) == 0, "semtimedop");
  expect(semctl(semaphores, 0, IPC_STAT, &page->out.set) == 0 && page->out.set.sem_nsems == 1,
         "semctl");
  page->values[0] = 7;
  expect(semctl(semaphores, 0, SETALL, page->values) == 0, "SETALL");
  page->values[0] = 0;
  expect(semctl(semaphores, 0, GETALL, page->values) == 0 && page->values[0] == 7, "GETALL");
  page->values[0] = 0;
  expect(semctl(semaphores, 0, SETALL, page->values) == 0, "SETALL");
  expect(shmctl(segment, IPC_STAT, &page->out.segment) == 0 && page->out.segment.shm_segsz == 4096,
         "shmctl");
}

static void processors(void) {
  cpu_set_t own;
  sched_getaffinity(0, sizeof own, &own);
  expect(sched_getaffinity(0, sizeof page->out.mask, &page->out.mask) == 0 &&
             memcmp(&page->out.mask, &own, sizeof own) == 0,
         "sched_getaffinity");
  expect(times(&page->out.times) != (clock_t)-1, "times");
  memset(&page->out, 0, sizeof page->out);
  expect(sysinfo(&page->out.info) == 0 && page->out.info.mem_unit > 0, "sysinfo");
  memset(&page->out, 0xff, sizeof page->out);
  expect(prlimit(getpid(), RLIMIT_CORE, NULL, &page->out.limit) == 0 &&
             page->out.limit.rlim_cur <= page->out.limit.rlim_max,
         "prlimit");
}

static void children(void) {
  pid_t pid = child();
  page->status = -1;
  page->out.usage.ru_nvcsw = -1;
  expect(wait4(pid, &page->status, 0, &page->out.usage) == pid && page->status == 0 &&
             page->out.usage.ru_nvcsw >= 0,
         "wait4");
  pid = child();
  memset(&page->out, 0, sizeof page->out);
  static struct rusage usage;  // not shared
  expect(syscall(SYS_waitid, P_PID, pid, &page->out.child, WEXITED, &usage) == 0 &&
             page->out.child.si_pid == pid,
         "waitid");
  page->out.usage.ru_nvcsw = -1;
  expect(getrusage(RUSAGE_CHILDREN, &page->out.usage) == 0 && page->out.usage.ru_nvcsw >= 0,
         "getrusage");
}

// Until its turn is over; what it has written is there then.
static void write_all_the_time(int self, int number) {
  while (!__atomic_load_n(&stop[number], __ATOMIC_ACQUIRE)) {
    ++page->written[self][0];
    ++page->written[self][1];
    ++page->last;  // not counted: all write it
    sched_yield();
  }
}

static void open_queue(int flags) {
  struct mq_attr attributes = {.mq_maxmsg = 4, .mq_msgsize = sizeof page->got.text};
  messages = mq_open(page->name, flags | O_RDWR, 0600, &attributes);
  expect(messages >= 0, "mq_open");
}

static void make_all(void) {
  semaphores = semget(IPC_PRIVATE, 1, 0600);
  queue = msgget(IPC_PRIVATE, 0600);
  segment = shmget(IPC_PRIVATE, 4096, 0600);
  expect(semaphores >= 0 && queue >= 0 && segment >= 0, "made");
  snprintf(page->name, sizeof page->name, "/answers.%d", (int)getpid());
  open_queue(O_CREAT);
}

static void remove_all(void) {
  expect(mq_unlink(page->name) == 0, "mq_unlink");
  semctl(semaphores, 0, IPC_RMID);
  msgctl(queue, IPC_RMID, NULL);
  shmctl(segment, IPC_RMID, NULL);
}

// `wait`: until all writers have come so far.
static void take_turns(int self, void (*wait)(void)) {
  for (int number = 0; number < kWriters * kTurns; ++number) {
    wait();
    const long before = page->written[self][0];
    if (self != number % kWriters) {
      write_all_the_time(self, number);
      expect(page->written[self][0] >= before && page->written[self][0] == page->written[self][1],
             "what a writer has written");
    } else {
      queues();
      semaphore();
      processors();
      children();
      __atomic_store_n(&stop[number], 1, __ATOMIC_RELEASE);
    }
    wait();
  }
}
