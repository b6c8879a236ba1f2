/* Features: what connects a process with others. SPDX-License-Identifier: GPL-2.0-or-later */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "features.h"

/* A child that stays where it was made echoes what it is told. */
static void echo(int from, int to) {
  char bytes[4096];
  ssize_t got;
  while ((got = read(from, bytes, sizeof bytes)) > 0)
    if (write(to, bytes, (size_t)got) != got) break;
  _exit(got == 0 ? 7 : 8);
}
static void talk(int to, int from, pid_t child) {
  uint32_t sent = 0;
  char line[32], back[32];
  for (; goes_on(); ++sent) {
    const int bytes = snprintf(line, sizeof line, "line %u\n", sent);
    check(write(to, line, (size_t)bytes) == bytes, "write");
    for (int have = 0; have < bytes;) {
      const ssize_t got = read(from, back + have, (size_t)(bytes - have));
      if (got < 0 && errno == EINTR) continue;
      check(got > 0, "read");
      have += (int)got;
    }
    check(memcmp(line, back, (size_t)bytes) == 0, "echo");
    usleep(2000);
  }
  close(to);
  if (from != to) close(from);
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  check(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's end");
  puts("all was echoed");
}
void pipes(void) {
  int there[2], back[2];
  if (pipe(there) != 0 || pipe(back) != 0) fail("pipe");
  const pid_t child = fork();
  if (child == 0) {
    close(there[1]);
    close(back[0]);
    echo(there[0], back[1]);
  }
  close(there[0]);
  close(back[1]);
  talk(there[1], back[0], child);
}
void fifos(void) {
  char there[64], back[64];
  snprintf(there, sizeof there, "there.%d", getpid());
  snprintf(back, sizeof back, "back.%d", getpid());
  check(mkfifo(there, 0600) == 0 && mkfifo(back, 0600) == 0, "mkfifo");
  const pid_t child = fork();
  if (child == 0) {
    const int from = open(there, O_RDONLY), to = open(back, O_WRONLY);
    echo(from, to);
  }
  int to, from;
  while ((to = open(there, O_WRONLY)) < 0) check(errno == EINTR, "open");
  while ((from = open(back, O_RDONLY)) < 0) check(errno == EINTR, "open");
  unlink(there);
  unlink(back);
  talk(to, from, child);
}
void sockets(void) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) fail("socketpair");
  const pid_t child = fork();
  if (child == 0) {
    close(pair[0]);
    echo(pair[1], pair[1]);
  }
  close(pair[1]);
  talk(pair[0], pair[0], child);
}

/* Packets and datagrams: a child that stays where it was made echoes them; what comes by a socket
   with a name it counts, as a log does. An empty datagram ends it, when it has had as many as the
   number before said. */
static void echo_packets(const int* pair, int named) {
  uint32_t logged = 0, last = 0, number = 0;
  for (int ends = 0; !ends || logged < last;) {
    struct pollfd wanted[] = {{.fd = pair[0], .events = POLLIN},
                              {.fd = pair[1], .events = POLLIN},
                              {.fd = named, .events = POLLIN}};
    if (poll(wanted, 3, 20000) <= 0) _exit(8);
    if (wanted[2].revents) {
      if (recv(named, &number, sizeof number, 0) != sizeof number || number != logged++) _exit(9);
    }
    for (int i = 0; i < 2; ++i) {
      char bytes[4096];
      const ssize_t got = wanted[i].revents ? recv(pair[i], bytes, sizeof bytes, 0) : 0;
      if (got < 0) _exit(10);
      if (got == sizeof last) memcpy(&last, bytes, sizeof last);
      if (got > 0 && send(pair[i], bytes, (size_t)got, 0) != got) _exit(11);
      if (i == 0 && wanted[i].revents && got == 0) ends = 1;
    }
  }
  _exit(7);
}
static void expect_packet(int fd, const void* bytes, size_t size) {
  char back[4096];
  ssize_t got;
  check(send(fd, bytes, size, 0) == (ssize_t)size, "send");
  while ((got = recv(fd, back, sizeof back, 0)) < 0 && errno == EINTR) {
  }
  check(got == (ssize_t)size && memcmp(back, bytes, size) == 0, "the same packet");
}
void packets(void) {
  int datagrams[2], in_order[2];
  if (socketpair(AF_UNIX, SOCK_DGRAM, 0, datagrams) != 0 ||
      socketpair(AF_UNIX, SOCK_SEQPACKET, 0, in_order) != 0)
    fail("socketpair");
  const int named = socket(AF_UNIX, SOCK_DGRAM, 0);
  struct sockaddr_un place = {.sun_family = AF_UNIX};
  snprintf(place.sun_path, sizeof place.sun_path, "packets.%d", getpid());
  check(bind(named, (struct sockaddr*)&place, sizeof place) == 0, "bind");
  const pid_t child = fork();
  if (child == 0) {
    close(datagrams[0]);
    close(in_order[0]);
    echo_packets((const int[]){datagrams[1], in_order[1]}, named);
  }
  close(datagrams[1]);
  close(in_order[1]);
  close(named);
  const int log = socket(AF_UNIX, SOCK_DGRAM, 0); /* nothing yet */
  uint32_t sent = 0;
  for (; sent < 10 || goes_on(); ++sent, usleep(2000)) {
    char text[2000];
    memset(text, 'a' + (int)(sent % 26), sizeof text);
    if (sent == 9) check(connect(log, (struct sockaddr*)&place, sizeof place) == 0, "connect");
    if (sent >= 9) {
      const uint32_t number = sent - 9;
      check(send(log, &number, sizeof number, 0) == sizeof number, "send to the log");
    }
    expect_packet(datagrams[0], text, 5 + sent % 1000);
    expect_packet(in_order[0], text, 6 + sent % 1000);
  }
  sent -= 9;
  expect_packet(datagrams[0], &sent, sizeof sent);
  check(send(datagrams[0], "", 0, 0) == 0, "the last one");
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  check(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's end");
  unlink(place.sun_path);
  puts("all packets came");
}

void tcp(void) {
  const int listening = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  if (bind(listening, (struct sockaddr*)&address, size) != 0 || listen(listening, 1) != 0)
    fail("listen");
  getsockname(listening, (struct sockaddr*)&address, &size);
  const pid_t child = fork();
  if (child == 0) {
    const int accepted = accept(listening, NULL, NULL);
    close(listening);
    echo(accepted, accepted);
  }
  close(listening);
  const int connected = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(connected, (struct sockaddr*)&address, size) != 0) fail("connect");
  talk(connected, connected, child);
}

/* A server: its client, a child that stays where it was made, connects anew each time. */
static int ask_server(const struct sockaddr* address, socklen_t size, uint32_t number) {
  uint32_t back = 0;
  const int fd = socket(address->sa_family, SOCK_STREAM, 0);
  if (connect(fd, address, size) != 0) return 1;
  if (write(fd, &number, sizeof number) != sizeof number) return 2;
  if (recv(fd, &back, sizeof back, MSG_WAITALL) != sizeof back || back != number + 1) return 3;
  if (read(fd, &back, 1) != 0) return 4;
  close(fd);
  return 0;
}
static void serve(int listening, uint32_t* served) {
  struct sockaddr_storage peer;
  socklen_t size = sizeof peer;
  uint32_t number = 0;
  const int fd = accept(listening, (struct sockaddr*)&peer, &size);
  if (fd < 0 && (errno == EINTR || errno == EAGAIN)) return;
  check(fd >= 0, "accept");
  ssize_t got;
  while ((got = recv(fd, &number, sizeof number, MSG_WAITALL)) < 0 && errno == EINTR) {
  }
  ++number;
  check(got == sizeof number && write(fd, &number, sizeof number) == sizeof number, "served");
  close(fd);
  ++*served;
}
void listening(void) {
  const int tcp = socket(AF_INET, SOCK_STREAM, 0), local = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct sockaddr_un here = {.sun_family = AF_UNIX};
  socklen_t size = sizeof there;
  snprintf(here.sun_path, sizeof here.sun_path, "listening.%d", getpid());
  check(bind(tcp, (struct sockaddr*)&there, size) == 0 && listen(tcp, 5) == 0, "listen");
  check(bind(local, (struct sockaddr*)&here, sizeof here) == 0 && listen(local, 5) == 0, "listen");
  getsockname(tcp, (struct sockaddr*)&there, &size);
  const pid_t child = fork();
  if (child == 0) {
    close(tcp);
    close(local);
    int failed = 0;
    for (uint32_t number = 0; (number < 4 || goes_on()) && !failed; number += 2, usleep(3000)) {
      failed = ask_server((struct sockaddr*)&there, sizeof there, number);
      if (!failed) failed = 10 * ask_server((struct sockaddr*)&here, sizeof here, number + 1);
    }
    _exit(failed);
  }
  uint32_t served = 0;
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(child, &status, WNOHANG)) == 0) {
    struct pollfd wanted[] = {{.fd = tcp, .events = POLLIN}, {.fd = local, .events = POLLIN}};
    if (poll(wanted, 2, 20) <= 0) continue;
    if (wanted[0].revents) serve(tcp, &served);
    if (wanted[1].revents) serve(local, &served);
  }
  unlink(here.sun_path);
  if (ended != child || status != 0 || served < 4)
    printf("%u served, the client: %d, %x\n", served, ended == child, (unsigned)status);
  else
    puts("all were served");
}
