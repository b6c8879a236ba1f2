/* System V message queues are one for parent and children: order, types, limits, waits, removal,
 * interruption and stops. SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <sys/ipc.h>
#include <sys/msg.h>

enum { kKey = 0x6b7267, kFull = 8192 };

struct message {
  long type;
  char text[kFull];
};

static int queue_of(int flags) {
  const int id = msgget(kKey, flags | 0600);
  if (id < 0) fail("msgget");
  return id;
}
static const char* outcome(long result) {
  return result < 0 ? strerror(errno) : "done";
}
static long send_text(int id, long type, const char* text, int flags) {
  struct message message = {.type = type};
  strcpy(message.text, text);
  return msgsnd(id, &message, strlen(text) + 1, flags);
}
static void on_signal(int signal) {
  (void)signal;
}
static void tell_received(int id, long type, int flags, size_t size) {
  struct message message;
  const long got = msgrcv(id, &message, size, type, flags);
  if (got < 0)
    say("type %ld: %s", type, strerror(errno));
  else
    say("type %ld: %ld bytes of type %ld: %.8s", type, got, message.type, got ? message.text : "");
}

/* The parent sends signals until it hears of it. */
static void wait_till_interrupted(int id) {
  struct message message;
  const long got = msgrcv(id, &message, kFull, 0, 0);
  const char* result = outcome(got);
  signal(SIGUSR1, SIG_IGN);
  say("interrupted: %s", result);
}

__attribute__((noreturn)) static void child(void) {
  const int id = queue_of(0);
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGUSR1, &action, NULL);
  tell_received(id, 2, 0, kFull);
  tell_received(id, -3, 0, kFull);
  tell_received(id, 1, MSG_EXCEPT, 3);
  tell_received(id, 1, MSG_EXCEPT | MSG_NOERROR, 3);
  tell_received(id, 0, 0, kFull);
  tell_received(id, 0, IPC_NOWAIT, kFull);
  say("waits");
  wait_till_interrupted(id);
  say("waits");
  tell_received(id, 0, 0, kFull);
  wait_for_order();
  struct message full = {.type = 9};
  for (int i = 0; i < 2; ++i) say("full: %s", outcome(msgsnd(id, &full, kFull, 0)));
  say("no room: %s", outcome(send_text(id, 1, "more", IPC_NOWAIT)));
  say("room: %s", outcome(send_text(id, 4, "more", 0)));
  say("waits");
  struct message message;
  const long got = msgrcv(id, &message, kFull, 77, 0);
  /* Where the parent was quicker, the queue was gone before. */
  say("removed: %d", got < 0 && (errno == EIDRM || errno == EINVAL));
  exit(0);
}

int main(int argc, char** argv) {
  if (begin(argc, argv)) child();
  const int id = queue_of(IPC_CREAT | IPC_EXCL);
  printf("again: %s\n", outcome(msgget(kKey, IPC_CREAT | IPC_EXCL | 0600)));
  send_text(id, 4, "four", 0);
  send_text(id, 3, "three", 0);
  send_text(id, 1, "one", 0);
  struct child c = start_child("child", -1);
  usleep(100000);
  printf("send: %s\n", outcome(send_text(id, 2, "two", 0)));
  for (int i = 0; i < 7; ++i) puts(heard(&c));
  do {
    kill(c.pid, SIGUSR1);
  } while (!can_hear(&c));
  puts(heard(&c));
  puts(heard(&c));
  usleep(100000);
  kill(c.pid, SIGSTOP);
  wait_and_print("stop", c.pid, WUNTRACED);
  kill(c.pid, SIGCONT);
  usleep(100000);
  printf("send: %s\n", outcome(send_text(id, 5, "five", 0)));
  puts(heard(&c));
  struct msqid_ds stat;
  msgctl(id, IPC_STAT, &stat);
  printf("messages %lu sender %d receiver %d mode %o\n", (unsigned long)stat.msg_qnum,
         stat.msg_lspid == getpid(), stat.msg_lrpid == c.pid, stat.msg_perm.mode);
  order(&c);
  for (int i = 0; i < 3; ++i) puts(heard(&c));
  static struct message message;
  printf("receive: %ld\n", (long)msgrcv(id, &message, kFull, 9, 0));
  puts(heard(&c));
  puts(heard(&c));
  usleep(50000);
  printf("remove: %s\n", outcome(msgctl(id, IPC_RMID, NULL)));
  puts(heard(&c));
  wait_and_print("child", c.pid, 0);
  printf("gone: %s\n", outcome(msgget(kKey, 0600)));
  return 0;
}
