/* Features: terminals, and processes that are stopped. SPDX-License-Identifier: GPL-2.0-or-later */
#include <sys/ioctl.h>
#include <termios.h>

#include "features.h"

/* A line of `descriptor`, byte by byte: nothing of the next one is taken. */
static void read_line(int descriptor, char* line, size_t room) {
  size_t have = 0;
  while (have == 0 || line[have - 1] != '\n') {
    const ssize_t got = read(descriptor, line + have, 1);
    if (got < 0 && errno == EINTR) continue;
    check(got == 1 && ++have < room, "a line");
  }
  line[have] = 0;
}
/* Has the other side of the terminal: answers each line, and changes the size of the window. */
static void answer_lines(int master) {
  char line[64], answer[80];
  size_t have = 0;
  for (unsigned short rows = 1;;) {
    const ssize_t got = read(master, line + have, 1);
    if (got <= 0) _exit(errno == EIO ? 7 : 8);
    if (line[have++] != '\n') continue;
    const struct winsize size = {.ws_row = rows++, .ws_col = 80};
    const int bytes = snprintf(answer, sizeof answer, "answer to %.*s", (int)have, line);
    if (ioctl(master, TIOCSWINSZ, &size) != 0 || write(master, answer, (size_t)bytes) != bytes)
      _exit(9);
    have = 0;
  }
}
void ttys(void) {
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  check(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "pseudo-terminal");
  const int terminal = open(ptsname(master), O_RDWR | O_NOCTTY);
  struct termios modes, now;
  check(terminal >= 0 && tcgetattr(terminal, &modes) == 0, "terminal");
  modes.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
  modes.c_oflag &= ~(tcflag_t)OPOST;
  check(tcsetattr(terminal, TCSANOW, &modes) == 0, "modes");
  const pid_t child = fork();
  if (child == 0) {
    close(terminal);
    answer_lines(master);
  }
  close(master);
  char asked[64], wanted[80], line[80];
  for (long number = 1; goes_on(); ++number) {
    check(isatty(terminal) && tcgetattr(terminal, &now) == 0, "a terminal");
    check((now.c_lflag & (ECHO | ICANON)) == (modes.c_lflag & (ECHO | ICANON)), "modes");
    const int bytes = snprintf(asked, sizeof asked, "line %ld\n", number);
    check(write(terminal, asked, (size_t)bytes) == bytes, "write");
    read_line(terminal, line, sizeof line);
    snprintf(wanted, sizeof wanted, "answer to %s", asked);
    check(strcmp(line, wanted) == 0, line);
    struct winsize size = {0};
    for (int i = 0; i < 2000 && size.ws_row != (unsigned short)number; ++i) {
      rest(2);
      check(ioctl(terminal, TIOCGWINSZ, &size) == 0, "size of a window");
    }
    check(size.ws_row == (unsigned short)number && size.ws_col == 80, "another size");
    /* Every few lines byte by byte instead of line by line. */
    if (number % 4 == 0) modes.c_lflag ^= ICANON;
    check(tcsetattr(terminal, TCSADRAIN, &modes) == 0, "modes");
  }
  close(terminal);
  int status = 0;
  pid_t ended;
  while ((ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {
  }
  check(ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 7, "the child's end");
  puts("all lines answered");
}

/* Says all the time that it runs. */
static void tick(int to) {
  while (write(to, "t", 1) == 1) rest(1);
  _exit(1);
}
static int wait_for_change(pid_t child, int how) {
  int status = 0;
  pid_t changed;
  while ((changed = waitpid(child, &status, how)) < 0 && errno == EINTR) {
  }
  check(changed == child, "waitpid");
  return status;
}
/* For how long nothing comes: 0 when there is no such time within some seconds. */
static int falls_silent(int from, int ms) {
  char bytes[256];
  struct pollfd wanted = {.fd = from, .events = POLLIN};
  for (int i = 0; i < 5000; ++i) {
    const int got = poll(&wanted, 1, ms);
    if (got == 0) return ms;
    if (got > 0) check(read(from, bytes, sizeof bytes) > 0, "read");
  }
  return 0;
}
/* A child is stopped again and again, and goes on; it is moved meanwhile. */
void stopped(void) {
  int ticks[2];
  char name[64];
  check(pipe(ticks) == 0, "pipe");
  const pid_t child = fork();
  if (child == 0) {
    close(ticks[0]);
    tick(ticks[1]);
  }
  close(ticks[1]);
  /* For who moves it. */
  snprintf(name, sizeof name, "child.%d", getpid());
  FILE* told = fopen(name, "w");
  check(told && fprintf(told, "%d\n", child) > 0 && fclose(told) == 0, "file");
  while (goes_on()) {
    check(kill(child, SIGSTOP) == 0, "stop");
    int status = wait_for_change(child, WUNTRACED);
    check(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP, "a stop");
    check(falls_silent(ticks[0], 60), "it goes on though it is stopped");
    check(kill(child, SIGCONT) == 0, "continue");
    status = wait_for_change(child, WCONTINUED);
    check(WIFCONTINUED(status), "it goes on");
    char byte;
    ssize_t got;
    while ((got = read(ticks[0], &byte, 1)) < 0 && errno == EINTR) {
    }
    check(got == 1, "read");
  }
  unlink(name);
  check(kill(child, SIGSTOP) == 0, "stop");
  check(WIFSTOPPED(wait_for_change(child, WUNTRACED)), "a stop");
  check(kill(child, SIGTERM) == 0 && kill(child, SIGCONT) == 0, "end");
  int status;
  while (WIFSTOPPED(status = wait_for_change(child, 0))) {
  }
  check(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "the child's end");
  puts("all stops seen");
}
