/* A pre-fork server: prefork fork|exec ADDRESS, where ADDRESS is one of IPv4 (a free port) or the
 * path of a unix socket. Three workers, each a fork or a program of its own (prefork work N),
 * accept by one socket and answer what they are asked with their pid and node. "started" tells the
 * pids and the port. At SIGTERM they end, each with a file that says how many it has served.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kWorkers = 3 };
static volatile sig_atomic_t ends;

static void end(int number) {
  (void)number;
  ends = 1;
}

static void end_by_signal(void) {
  struct sigaction action = {.sa_handler = end};
  sigaction(SIGTERM, &action, NULL);
}

static void must(int holds, const char* what) {
  if (holds) return;
  perror(what);
  exit(1);
}

static void work(int listening) {
  int served = 0;
  struct utsname node;
  uname(&node);
  end_by_signal();
  while (!ends) {
    const int peer = accept(listening, NULL, NULL);
    if (peer < 0) {
      must(errno == EINTR, "accept");
      continue;
    }
    char asked[100];
    ssize_t got;
    while ((got = recv(peer, asked, sizeof asked, 0)) < 0 && errno == EINTR) {
    }
    must(got > 0, "recv");
    usleep(10000); /* the others' turn */
    must(dprintf(peer, "%.*s %d %s", (int)got, asked, getpid(), node.nodename) > 0, "answer");
    close(peer);
    ++served;
  }
  char name[40];
  snprintf(name, sizeof name, "served%d", getpid());
  FILE* file = fopen(name, "w");
  must(file && fprintf(file, "%d\n", served) > 0 && fclose(file) == 0, name);
  _exit(0);
}

static int listen_at(const char* address, int* port) {
  struct sockaddr_in there = {.sin_family = AF_INET};
  struct sockaddr_un path = {.sun_family = AF_UNIX};
  const int is_path = inet_pton(AF_INET, address, &there.sin_addr) != 1;
  socklen_t size = is_path ? sizeof path : sizeof there;
  struct sockaddr* any = is_path ? (struct sockaddr*)&path : (struct sockaddr*)&there;
  snprintf(path.sun_path, sizeof path.sun_path, "%s", address);
  const int listening = socket(any->sa_family, SOCK_STREAM, 0);
  must(bind(listening, any, size) == 0 && listen(listening, 128) == 0 &&
           (is_path || getsockname(listening, any, &size) == 0),
       address);
  *port = ntohs(there.sin_port);
  return listening;
}

static pid_t make_worker(const char* program, int execs, int listening) {
  const pid_t pid = fork();
  must(pid >= 0, "fork");
  if (pid > 0) return pid;
  char number[12];
  snprintf(number, sizeof number, "%d", listening);
  if (execs) execl(program, program, "work", number, NULL);
  work(listening);
  return 0;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  if (strcmp(argv[1], "work") == 0) work(atoi(argv[2]));
  int port = 0, status = 0;
  const int listening = listen_at(argv[2], &port);
  pid_t workers[kWorkers];
  for (int i = 0; i < kWorkers; ++i)
    workers[i] = make_worker(argv[0], strcmp(argv[1], "exec") == 0, listening);
  sigset_t term, none;
  sigemptyset(&none);
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  sigprocmask(SIG_BLOCK, &term, NULL);
  end_by_signal();
  FILE* file = fopen("new", "w");
  must(file != NULL, "new");
  fprintf(file, "%d", getpid());
  for (int i = 0; i < kWorkers; ++i) fprintf(file, " %d", workers[i]);
  fprintf(file, " %d\n", port);
  must(fclose(file) == 0 && rename("new", "started") == 0, "started");
  while (!ends) sigsuspend(&none);
  for (int i = 0; i < kWorkers; ++i) {
    pid_t ended;
    do { /* again: one that is about to wait has not noticed the first */
      kill(workers[i], SIGTERM);
      usleep(10000);
    } while ((ended = waitpid(workers[i], &status, WNOHANG)) == 0);
    must(ended == workers[i] && status == 0, "a worker");
  }
  return 3;
}
