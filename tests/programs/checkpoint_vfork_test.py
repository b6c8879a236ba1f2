"""Programs that wait in vfork(2) for a child that is not quick to exec are frozen at whatever instant that happens, saved, and go on.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from checkpoint_case import CheckpointCase

# Each child waits before its exec, so that its parent is in vfork nearly all of the time; two such loops, one of them behind a child of vfork itself.
PROGRAM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
static int spawn(char** words, int wait_us) {
  pid_t child = vfork();
  if (child == 0) {
    usleep(wait_us);
    execv(words[0], words);
    _exit(127);
  }
  int status;
  if (child < 0 || waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
int main(int argc, char** argv) {
  if (argc > 2) return atoi(argv[2]) % 100;
  char* again[] = {argv[0], "inner", NULL};
  if (argc == 1 && fork() == 0) return spawn(again, 1000);
  for (int step = 0; step < 100000 && access("end", F_OK) != 0; ++step) {
    char number[16];
    snprintf(number, sizeof number, "%d", step);
    char* child[] = {argv[0], "child", number, NULL};
    if (spawn(child, 2000 + step * 7919 % 28000) != step % 100) return 9;
  }
  if (argc > 1) return 7;
  int status;
  if (wait(&status) < 0 || !WIFEXITED(status)) return 8;
  printf("inner %d\n", WEXITSTATUS(status));
  return 0;
}
"""

FREEZES = """
krg_capset -e -CHECKPOINTABLE
(krg_capset -e +CHECKPOINTABLE $BASHPID; exec ./vforks) & program=$!
for i in $(seq 15); do
  sleep 0.0$((i * 7 % 10))
  krg_checkpoint freeze $program && krg_checkpoint unfreeze $program || exit 3
done
krg_checkpoint freeze $program && krg_checkpoint -o ckpt $program >&2 && touch saved
sleep 1000
"""


class CheckpointVforkTest(CheckpointCase):
    def test_who_waits_in_vfork_is_frozen_and_goes_on(self):
        (self.work / "vforks.c").write_text(PROGRAM, encoding="ascii")
        self.native("gcc", "-O1", "-o", "vforks", "vforks.c")
        (self.work / "script").write_text(FREEZES, encoding="ascii")
        process = self.start("-N", "1", "--caps=+CHECKPOINTABLE", "bash", "script")
        self.wait_for_file("saved", process)
        self.end(process)
        self.assertNotIn("krg_checkpoint: ", self.errors())
        (self.work / "end").touch()
        done = self.restart("-N", "1")
        self.assertEqual((done.returncode, (self.work / "out").read_text(encoding="ascii")), (0, "inner 7\n"), done.stderr)


if __name__ == "__main__":
    session_case.main()
