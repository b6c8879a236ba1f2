// System calls whose arguments point to structures that point to further memory, each piece of it
// in a page that another thread has just written, which may be on another node: made by each
// thread in turn. An argument is a shell command that is given the number of a child, whose memory
// is read and written, too.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kPages = 40, kPage = 4096, kPieces = 3, kTurns = 2 };
static char pages[kPages][kPage] __attribute__((aligned(4096)));
static pthread_barrier_t turn;
static int failures, file, ends[2], pair[2], poller;

static void expect(int good, const char* what) {
  if (good) return;
  printf("%s: %s\n", what, strerror(errno));
  __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);
}

// What the other thread prepares: pieces of text, lists of them, messages.
struct Prepared {
  struct iovec* pieces;
  struct iovec* into;
  struct msghdr *sent, *got;
  struct mmsghdr *all_sent, *all_got;
  struct pollfd* polled;
  fd_set* selected;
  struct timeval* soon;
  struct timespec* soon_ns;
  sigset_t* mask;
  struct epoll_event* events;
  struct iovec* copied;
  struct iovec* copy;
};
static struct Prepared at;
static pid_t target;
static char shown[kPage] __attribute__((aligned(4096)));  // of the target
static int next_page;

static void* page(void) {
  if (next_page == kPages) abort();
  return memset(pages[next_page++], 0, kPage);
}

static struct iovec* vector_of(const char* text) {
  struct iovec* vector = page();
  for (int i = 0; i < kPieces; ++i) {
    vector[i].iov_base = page();
    vector[i].iov_len = 4;
    if (text) memcpy(vector[i].iov_base, text + 4 * i, 4);
  }
  return vector;
}

static void prepare(void) {
  next_page = 0;
  at.pieces = vector_of("one.two.tri.");
  at.into = vector_of(NULL);
  at.sent = page();
  at.sent->msg_iov = at.pieces;
  at.sent->msg_iovlen = kPieces;
  at.got = page();
  at.got->msg_iov = at.into;
  at.got->msg_iovlen = kPieces;
  at.all_sent = page();
  at.all_sent[0].msg_hdr = *at.sent;
  at.all_got = page();
  at.all_got[0].msg_hdr = *at.got;
  at.polled = page();
  at.polled->fd = ends[0];
  at.polled->events = POLLIN;
  at.selected = page();
  FD_SET(ends[0], at.selected);
  at.soon = page();
  at.soon_ns = page();
  at.mask = page();
  sigemptyset(at.mask);
  at.events = page();
  at.copied = vector_of("1234abcdABCD");
  at.copy = vector_of(NULL);
}

static int is_into(const struct iovec* vector, const char* text) {
  for (int i = 0; i < kPieces; ++i)
    if (memcmp(vector[i].iov_base, text + 4 * i, 4) != 0) return 0;
  return 1;
}

static void files(void) {
  expect(pwritev(file, at.pieces, kPieces, 0) == 12, "pwritev");
  expect(preadv(file, at.into, kPieces, 0) == 12 && is_into(at.into, "one.two.tri."), "preadv");
  expect(pwritev2(file, at.pieces, kPieces, 0, 0) == 12, "pwritev2");
  expect(preadv2(file, at.into, kPieces, 0, 0) == 12, "preadv2");
}

static void pipes(void) {
  expect(writev(ends[1], at.pieces, kPieces) == 12, "writev");
  expect(poll(at.polled, 1, 0) == 1 && at.polled->revents == POLLIN, "poll");
  expect(ppoll(at.polled, 1, at.soon_ns, at.mask) == 1, "ppoll");
  expect(select(ends[0] + 1, at.selected, NULL, NULL, at.soon) == 1, "select");
  expect(pselect(ends[0] + 1, at.selected, NULL, NULL, at.soon_ns, at.mask) == 1, "pselect");
  expect(epoll_wait(poller, at.events, 1, 0) == 1 && at.events->data.fd == 7, "epoll_wait");
  expect(epoll_pwait(poller, at.events, 1, 0, at.mask) == 1, "epoll_pwait");
  expect(readv(ends[0], at.into, kPieces) == 12 && is_into(at.into, "one.two.tri."), "readv");
  expect(vmsplice(ends[1], at.pieces, kPieces, 0) == 12, "vmsplice");
  expect(readv(ends[0], at.into, kPieces) == 12, "readv of what was spliced");
}

static void sockets(void) {
  expect(sendmsg(pair[0], at.sent, 0) == 12, "sendmsg");
  expect(recvmsg(pair[1], at.got, 0) == 12 && is_into(at.into, "one.two.tri."), "recvmsg");
  expect(sendmmsg(pair[0], at.all_sent, 1, 0) == 1 && at.all_sent->msg_len == 12, "sendmmsg");
  expect(recvmmsg(pair[1], at.all_got, 1, 0, NULL) == 1 && at.all_got->msg_len == 12, "recvmmsg");
}

static void memory(void) {
  expect(process_vm_readv(getpid(), at.copy, kPieces, at.copied, kPieces, 0) == 12 &&
             is_into(at.copy, "1234abcdABCD"),
         "process_vm_readv");
  expect(process_vm_writev(getpid(), at.pieces, kPieces, at.copy, kPieces, 0) == 12 &&
             is_into(at.copy, "one.two.tri."),
         "process_vm_writev");
}

// Of another process, perhaps on another node.
static void others_memory(void) {
  if (target == 0) return;
  struct iovec there = {.iov_base = shown, .iov_len = 12};
  memcpy(pages[kPages - 1], &there, sizeof there);
  const struct iovec* of = (struct iovec*)pages[kPages - 1];
  expect(process_vm_writev(target, at.pieces, kPieces, of, 1, 0) == 12, "process_vm_writev there");
  expect(process_vm_readv(target, at.into, kPieces, of, 1, 0) == 12 &&
             is_into(at.into, "one.two.tri."),
         "process_vm_readv there");
}

static void (*const kinds[])(void) = {files, pipes, sockets, memory, others_memory};

// One prepares, the other one calls.
static void* take_turns(void* argument) {
  const int number = (int)(long)argument;
  for (int round = 0; round < kTurns; ++round)
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; ++kind)
      for (int caller = 0; caller < 2; ++caller) {
        if (caller != number) prepare();
        pthread_barrier_wait(&turn);
        if (caller == number) kinds[kind]();
        pthread_barrier_wait(&turn);
      }
  return NULL;
}

// A child of the same addresses that waits till its input ends. `command` moves it, by its number.
static int begin_target(const char* command) {
  int input[2];
  char line[256];
  expect(pipe(input) == 0, "pipe");
  target = fork();
  if (target == 0) {
    close(input[1]);
    char c;
    _exit(read(input[0], &c, 1) != 0);
  }
  close(input[0]);
  snprintf(line, sizeof line, command, (int)target);
  expect(system(line) == 0, "command");
  return input[1];
}

static void end_target(int input) {
  int status = 1;
  close(input);
  expect(waitpid(target, &status, 0) == target && status == 0, "target");
}

int main(int count, char** arguments) {
  const int input = count > 1 ? begin_target(arguments[1]) : -1;
  char name[] = "/tmp/spread_vectors.XXXXXX";
  file = mkstemp(name);
  unlink(name);
  struct epoll_event event = {.events = EPOLLIN, .data = {.fd = 7}};
  poller = epoll_create1(0);
  expect(file >= 0 && pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 &&
             epoll_ctl(poller, EPOLL_CTL_ADD, ends[0], &event) == 0,
         "descriptors");
  pthread_barrier_init(&turn, NULL, 2);
  pthread_t other;
  pthread_create(&other, NULL, take_turns, (void*)1L);
  take_turns((void*)0L);
  pthread_join(other, NULL);
  if (input >= 0) end_target(input);
  printf("%d failures\n", failures);
  return failures != 0;
}
