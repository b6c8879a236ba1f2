// What the programs of the IPC tests have in common.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <fcntl.h>
#include <mqueue.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <time.h>
#include <unistd.h>

#include "must.h"

struct message {
  long type;
  uint64_t number;
};

static int semaphores;         // the set that change() is of
static int standing;           // messages that nobody takes until the end
static mqd_t replies, hidden;  // the same of "hidden", which has no name

static uint64_t mix(uint64_t x) {
  for (int i = 0; i < 1000; ++i) x = (x ^ (x >> 31)) * 0x9e3779b97f4a7c15ULL + 1;
  return x;
}

static void pause_ms(long ms) {
  const struct timespec time = {0, ms * 1000000};
  nanosleep(&time, NULL);
}

static void change(unsigned short number, short by, short flags) {
  struct sembuf operation = {number, by, flags};
  must(semop(semaphores, &operation, 1) == 0, "semop");
}

static void send(int queue, long type, uint64_t number) {
  const struct message message = {type, number};
  must(msgsnd(queue, &message, sizeof message.number, 0) == 0, "msgsnd");
}

static uint64_t receive(int queue, long type, int flags) {
  struct message message;
  must(msgrcv(queue, &message, sizeof message.number, type, flags) == sizeof message.number,
       "msgrcv");
  return message.number;
}

static void make_queues(void) {
  char name[64];
  const struct mq_attr limits = {.mq_maxmsg = 8, .mq_msgsize = 100};
  snprintf(name, sizeof name, "/krg-replies.%d", getpid());
  replies = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &limits);
  must(replies >= 0, "mq_open");
  snprintf(name, sizeof name, "/krg-hidden.%d", getpid());
  hidden = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &limits);
  must(hidden >= 0 && mq_unlink(name) == 0, "mq_open");
  for (unsigned i = 0; i < 7; ++i) {
    send(standing, 20 + (i * 3) % 5, i);
    must(mq_send(hidden, name, i + 1, (i * 5) % 4) == 0, "mq_send");
  }
}

static void tell_queues(void) {
  for (int i = 0; i < 3; ++i) printf("type -22: %d\n", (int)receive(standing, -22, 0));
  for (int i = 0; i < 4; ++i) printf("type 0: %d\n", (int)receive(standing, 0, 0));
  char text[100];
  unsigned priority = 0;
  for (int i = 0; i < 7; ++i) {
    const ssize_t got = mq_receive(hidden, text, sizeof text, &priority);
    printf("hidden: %d %u\n", (int)got, priority);
  }
}
