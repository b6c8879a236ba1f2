/* POSIX message queues are one for parent and children: order, limits, waits, notices, poll, names,
 * interruption, inheritance. SPDX-License-Identifier: GPL-2.0-or-later */
#include "tracee.h"

#include <limits.h>
#include <mqueue.h>
#include <sys/stat.h>
#include <time.h>

static const char kName[] = "/krg-tracee";
enum { kRoom = 3, kBytes = 32 };

static volatile sig_atomic_t told, told_value, told_by_queue;

static const char* outcome(long result) {
  return result < 0 ? strerror(errno) : "done";
}
static void on_message(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  told_value = info->si_value.sival_int;
  told_by_queue = info->si_code == SI_MESGQ;
  ++told;
}
static void on_thread(union sigval value) {
  told_value = value.sival_int;
  ++told;
}
static void on_signal(int signal) {
  (void)signal;
}
static mqd_t queue_of(int flags) {
  struct mq_attr attributes = {.mq_maxmsg = kRoom, .mq_msgsize = kBytes};
  const mqd_t queue = mq_open(kName, flags, 0600, &attributes);
  if (queue < 0) fail("mq_open");
  return queue;
}
static long send_text(mqd_t queue, const char* text, unsigned priority) {
  return mq_send(queue, text, strlen(text) + 1, priority);
}
static const char* received(mqd_t queue) {
  static char line[kBytes + 32];
  char text[kBytes];
  unsigned priority = 0;
  const long got = mq_receive(queue, text, sizeof text, &priority);
  if (got < 0) return strerror(errno);
  snprintf(line, sizeof line, "%ld bytes of priority %u: %.*s", got, priority, (int)got, text);
  return line;
}
static struct timespec in_ms(long milliseconds) {
  struct timespec when;
  clock_gettime(CLOCK_REALTIME, &when);
  when.tv_sec += milliseconds / 1000;
  when.tv_nsec += milliseconds % 1000 * 1000000;
  if (when.tv_nsec >= 1000000000) ++when.tv_sec, when.tv_nsec -= 1000000000;
  return when;
}
static long messages_in(mqd_t queue) {
  struct mq_attr attributes;
  return mq_getattr(queue, &attributes) == 0 ? attributes.mq_curmsgs : -1;
}
static void wait_till_told(int times) {
  for (int i = 0; i < 2000 && told < times; ++i) usleep(5000);
}

static void receive_all(mqd_t queue) {
  for (int i = 0; i < 3; ++i) say("received %s", received(queue));
  struct mq_attr nonblocking = {.mq_flags = O_NONBLOCK}, old;
  mq_setattr(queue, &nonblocking, &old);
  say("none: %s, was %ld", received(queue), old.mq_flags);
  nonblocking.mq_flags = 0;
  mq_setattr(queue, &nonblocking, &old);
  const struct timespec when = in_ms(50);
  char text[kBytes];
  const long got = mq_timedreceive(queue, text, sizeof text, NULL, &when);
  say("late: %s", outcome(got));
  say("small: %s", outcome(mq_receive(queue, text, 1, NULL)));
  say("only reads: %s", outcome(send_text(queue, "no", 0)));
}

/* The parent sends signals until it hears of it. */
static void wait_till_interrupted(mqd_t queue) {
  struct sigaction action = {.sa_handler = on_signal};
  sigaction(SIGUSR1, &action, NULL);
  say("waits");
  const char* result = received(queue);
  signal(SIGUSR1, SIG_IGN);
  say("interrupted: %s", result);
}

__attribute__((noreturn)) static void child(void) {
  const mqd_t queue = queue_of(O_RDONLY);
  receive_all(queue);
  wait_till_interrupted(queue);
  say("waits");
  say("received %s", received(queue));
  wait_for_order();
  struct sigevent event = {.sigev_notify = SIGEV_NONE};
  say("told already: %s", outcome(mq_notify(queue, &event)));
  const mqd_t writer = queue_of(O_WRONLY);
  say("notice: %s", outcome(send_text(writer, "notice", 1)));
  wait_for_order();
  say("by thread: %s", outcome(send_text(writer, "notice", 1)));
  wait_for_order();
  say("poll: %s", outcome(send_text(writer, "poll", 2)));
  wait_for_order();
  for (int i = 0; i < kRoom; ++i) say("fill: %s", outcome(send_text(writer, "fill", 0)));
  const struct timespec when = in_ms(50);
  say("no room: %s", outcome(mq_timedsend(writer, "x", 1, 0, &when)));
  say("long: %s", outcome(mq_send(writer, "0123456789012345678901234567890123", 34, 0)));
  say("waits");
  say("room: %s", outcome(send_text(writer, "last", 9)));
  wait_for_order();
  say("name: %s", outcome(mq_open(kName, O_RDONLY)));
  say("still there: %ld", messages_in(queue));
  exit(0);
}

static void notices(struct child* c, mqd_t queue) {
  struct sigaction action = {.sa_sigaction = on_message, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigaction(SIGUSR2, &action, NULL);
  struct sigevent event = {
      .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_int = 42};
  printf("notify: %s\n", outcome(mq_notify(queue, &event)));
  order(c);
  puts(heard(c));
  puts(heard(c));
  wait_till_told(1);
  printf("told %d: %d, by a queue: %d\n", told, told_value, told_by_queue);
  puts(received(queue));
  event.sigev_notify = SIGEV_THREAD;
  event.sigev_notify_function = on_thread;
  event.sigev_value.sival_int = 43;
  printf("notify: %s\n", outcome(mq_notify(queue, &event)));
  order(c);
  puts(heard(c));
  wait_till_told(2);
  printf("told %d: %d\n", told, told_value);
  puts(received(queue));
}

static void polls(struct child* c, mqd_t queue) {
  struct pollfd poll_of = {queue, POLLIN | POLLOUT, 0};
  int ready = poll(&poll_of, 1, 0);
  printf("ready: %d %x\n", ready, poll_of.revents);
  order(c);
  poll_of.events = POLLIN;
  ready = poll(&poll_of, 1, 20000);
  printf("ready: %d %x\n", ready, poll_of.revents);
  puts(heard(c));
  puts(received(queue));
}

/* A child of fork has the descriptor itself. */
static void inherited(mqd_t queue) {
  fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) {
    send_text(queue, "inherited", 7);
    printf("%s\n", received(queue));
    exit(0);
  }
  wait_and_print("fork", pid, 0);
}

int main(int argc, char** argv) {
  if (begin(argc, argv)) child();
  const mqd_t queue = queue_of(O_CREAT | O_EXCL | O_RDWR);
  printf("again: %s\n", outcome(mq_open(kName, O_CREAT | O_EXCL | O_RDWR, 0600, NULL)));
  send_text(queue, "low", 1);
  send_text(queue, "high", 5);
  struct child c = start_child("child", -1);
  usleep(100000);
  printf("send: %s\n", outcome(send_text(queue, "late", 1)));
  for (int i = 0; i < 7; ++i) puts(heard(&c));
  puts(heard(&c));
  do {
    kill(c.pid, SIGUSR1);
    usleep(20000);
  } while (!can_hear(&c));
  puts(heard(&c));
  puts(heard(&c));
  usleep(50000);
  printf("send: %s\n", outcome(send_text(queue, "hello", 3)));
  puts(heard(&c));
  notices(&c, queue);
  polls(&c, queue);
  order(&c);
  for (int i = 0; i < kRoom + 3; ++i) puts(heard(&c));
  printf("messages: %ld\n", messages_in(queue));
  puts(received(queue));
  puts(heard(&c));
  for (int i = 0; i < kRoom; ++i) puts(received(queue));
  inherited(queue);
  struct stat status;
  if (fstat(queue, &status) == 0) printf("mode %o\n", status.st_mode);
  printf("unlink: %s\n", outcome(mq_unlink(kName)));
  order(&c);
  puts(heard(&c));
  puts(heard(&c));
  wait_and_print("child", c.pid, 0);
  printf("gone: %s\n", outcome(mq_unlink(kName)));
  return 0;
}
