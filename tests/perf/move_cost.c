/* What a move of a process costs it, as it sees that itself.
 *
 *   move_cost pause MIB SECONDS   works on MIB of memory; the longest time between two of its
 * steps, in microseconds, and whether its memory is right
 *   move_cost fork MIB COUNT      forks COUNT children one after the other; the median time in
 * microseconds from before fork to the child's first instruction of its own, and to the child's
 * end, how many ran on another host, and the median time until fork returns
 *   move_cost apart MIB COUNT     likewise, waiting between two children until nothing is left of
 * the first one's memory
 *   move_cost load 1 SECONDS      counts as one that computes, as who waits for a disk does, but
 * takes no processor from the others: it waits for its vfork(2) child
 *
 * Clocks are compared between processes: on one machine only.
 * SPDX-License-Identifier: GPL-2.0-or-later */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "median.h"

enum { PAGE = 4096, MAX_COUNT = 1000 };

static uint64_t* filled(size_t words) {
  uint64_t* memory = malloc(words * sizeof *memory);
  if (!memory) exit(3);
  for (size_t i = 0; i < words; ++i) memory[i] = i * 0x9e3779b97f4a7c15u;
  return memory;
}

static int measure_pause(size_t words, double seconds) {
  uint64_t* memory = filled(words);
  const double start = now_us();
  double last = now_us(), longest = 0;
  size_t at = 0;
  puts("ready");
  fflush(stdout);
  while (last < start + seconds * 1e6) {
    const double now = now_us();
    if (now - last > longest) longest = now - last;
    last = now;
    memory[at] += 0;
    at = (at + 7919) % words;
  }
  size_t wrong = 0;
  for (size_t i = 0; i < words; ++i) wrong += memory[i] != i * 0x9e3779b97f4a7c15u;
  printf("%.0f %s\n", longest, wrong ? "wrong" : "right");
  return wrong != 0;
}

static int measure_fork(size_t words, int count, useconds_t between_us) {
  double first[MAX_COUNT], end[MAX_COUNT], returned[MAX_COUNT];
  char host[64] = "";
  int elsewhere = 0, pipes[2];
  uint64_t* memory = filled(words);
  gethostname(host, sizeof host - 1);
  if (pipe(pipes) != 0 || count < 1 || count > MAX_COUNT) return 2;
  for (int i = 0; i < count; ++i) {
    struct {
      double at;
      char host[64];
    } told;
    const double start = now_us();
    const pid_t child = fork();
    if (child == 0) {
      memset(&told, 0, sizeof told);
      told.at = now_us();
      gethostname(told.host, sizeof told.host - 1);
      _exit(write(pipes[1], &told, sizeof told) != sizeof told || memory[words / 2] == 1);
    }
    returned[i] = now_us() - start;
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) return 1;
    end[i] = now_us() - start;
    if (read(pipes[0], &told, sizeof told) != sizeof told) return 1;
    first[i] = told.at - start;
    elsewhere += strcmp(told.host, host) != 0;
    usleep(between_us);
  }
  sort_doubles(first, (size_t)count);
  sort_doubles(end, (size_t)count);
  sort_doubles(returned, (size_t)count);
  printf("%.0f %.0f %d %.0f\n", first[count / 2], end[count / 2], elsewhere, returned[count / 2]);
  return 0;
}

static int be_load(unsigned seconds) {
  const pid_t child = vfork();
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sleep(seconds);
    _exit(0);
  }
  return child < 0;
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const size_t words = (size_t)atol(argv[2]) * (1u << 20) / sizeof(uint64_t);
  if (words == 0) return 2;
  if (strcmp(argv[1], "load") == 0) return be_load((unsigned)atoi(argv[3]));
  if (strcmp(argv[1], "pause") == 0) return measure_pause(words, atof(argv[3]));
  return measure_fork(words, atoi(argv[3]), strcmp(argv[1], "apart") == 0 ? 150000 : 0);
}
