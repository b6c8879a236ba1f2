"""Whatever is killed while a process moves: exactly one copy of it goes on, or it dies and that is told.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import ctypes
import os
import pathlib
import random
import signal
import time

import session_case
from launcher_case import LauncherCase, wait_until

NODES = 3

# Counts into a file, one line a number, with memory that does not go along at once. A second copy would count the same again.
COUNTER = """
import os, time
ballast = bytearray(os.urandom(4096) * 4096)
out = os.open("counted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
print("counting", flush=True)
for number in range(100000):
    ballast[number * 4099 % len(ballast)] ^= 1
    os.write(out, b"%d %s\\n" % (number, os.uname().nodename.encode()))
    time.sleep(0.002)
"""

# Moves it between nodes 1 and 2 and its home for ever; tells how it ended. What krgrun itself says is all that stderr gets.
MOVING = """
exec 2>/dev/null
rm -f counted; /usr/bin/python3 counter.py & pid=$!
( while kill -0 $pid 2>/dev/null; do for node in 1 2 0 2 1 0; do krg_migrate $pid $node 2>/dev/null; done; done ) &
wait $pid; echo ended $?
kill $! 2>/dev/null
"""


# Counts into a file without a pause. When it is told to, it has itself moved, by a process that is no child of it.
FAST_COUNTER = """
import os
out = os.open("counted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
number = 0
while not os.path.exists("end"):
    os.write(out, b"%d %s\\n" % (number, os.uname().nodename.encode()))
    if number == 0: print("counting", flush=True)
    number += 1
    if os.path.exists("go"):
        os.remove("go")
        os.system("krg_migrate %d 2 2>/dev/null &" % os.getpid())
"""
MOVED_ONCE = """
exec 2>/dev/null
rm -f counted go end; /usr/bin/python3 counter.py & pid=$!
until [ -s counted ]; do sleep 0.05; done
krg_migrate $pid 1; echo moved $?
wait $pid; echo ended $?
"""

# Twice: to node 1 first, then, when all its memory is there, to node 2.
MOVED_ON = """
exec 2>/dev/null
rm -f counted go; /usr/bin/python3 counter.py & pid=$!
until [ -s counted ]; do sleep 0.05; done
krg_migrate $pid 1; echo moved $?
until [ -e go ]; do sleep 0.01; done
krg_migrate $pid 2 &
wait $pid; echo ended $?
"""
# What the nodes' logs say of such a move, in order; and which node says it.
PHASES = ((1, ": frozen"), (1, ": captured"), (1, ": asks n2"), (1, "later pages are served"), (2, ": may run"), (1, ": answered"),
          (2, ": to be thawed"), (2, ": thawed"), (1, ": moved"), (2, "all pages are here"))


class LastThreadToEnd:
    """Holds one of a process's threads, but its main one, at its end: the process's children are not killed before that has ended."""
    SEIZE, DETACH, TRACE_EXIT = 0x4206, 17, 0x40  # sys/ptrace.h

    def __init__(self, pid):
        self.ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        self.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
        self.tid = max(int(tid) for tid in os.listdir(f"/proc/{pid}/task"))

    def __enter__(self):
        if self.ptrace(self.SEIZE, self.tid, None, self.TRACE_EXIT) != 0:
            raise OSError(ctypes.get_errno(), "PTRACE_SEIZE")

    def __exit__(self, *_):
        os.waitpid(self.tid, 0x40000000)  # __WALL
        self.ptrace(self.DETACH, self.tid, None, None)


class MigrationFaults(LauncherCase):
    def environment(self, **more):
        return super().environment(KRG_LOG="image:trace,*:warn", **more)

    def start_moving(self):
        (self.work / "counter.py").write_text(COUNTER, encoding="ascii")
        process = self.start("krgrun", "-N", str(NODES), "--caps=+CAN_MIGRATE", "bash", "-c", MOVING)
        self.assertEqual(process.stdout.readline(), "counting\n")
        return process

    def numbers(self):
        lines = (self.work / "counted").read_text(encoding="ascii").split("\n")[:-1]
        return [int(line.split()[0]) for line in lines], {line.split()[1] for line in lines}

    def assert_counted_once(self):
        numbers, hosts = self.numbers()
        self.assertEqual(numbers, list(range(len(numbers))), "two copies counted, or one counted wrong")
        return hosts

    def ended(self, process, limit_s=20):
        """How the shell says that the counter ended; None: it goes on."""
        if not wait_until(lambda: process.poll() is not None, limit_s):
            return None
        words = process.stdout.read().split()
        return int(words[-1]) if words and words[-2:-1] == ["ended"] else process.returncode

    def assert_one_went_on_or_was_killed(self, process, status):
        """`status` as of ended(); ends it if it goes on."""
        if status is None:
            os.kill(min(self.pids_of("bash")), signal.SIGKILL)
        else:
            self.assertEqual(status, 128 + signal.SIGKILL)
        self.assert_counted_once()
        process.wait(20)
        self.assert_nothing_left()

    def test_a_node_dies(self):
        chance = random.Random(4711)
        for node in (1, 2):
            with self.subTest(node=node):
                process = self.start_moving()
                time.sleep(0.5 + chance.random())
                os.kill(self.krgd_of(node), signal.SIGKILL)
                self.assertIn(f"node {node} has failed", process.stderr.readline())
                time.sleep(1)
                before = len(self.numbers()[0])
                status = self.ended(process, 3)
                if status is None:  # it was on the other node, or had left for it: it goes on there
                    self.assertTrue(wait_until(lambda known=before: len(self.numbers()[0]) > known))
                self.assert_one_went_on_or_was_killed(process, status)

    def test_a_node_dies_at_each_phase(self):
        """Or as soon behind it as the kill comes: the one that it leaves, and the one where it goes."""
        if not self.has_shared_memory():
            self.skipTest("all pages come before it runs")
        (self.work / "counter.py").write_text(COUNTER, encoding="ascii")
        for speaks, phase in PHASES:
            for victim in (1, 2):
                with self.subTest(phase=phase, victim=victim):
                    for left in self.work.glob("go*"):
                        left.unlink()
                    process = self.start("krgrun", "-N", str(NODES), "--caps=+CAN_MIGRATE", "bash", "-c", MOVED_ON)
                    self.assertEqual([process.stdout.readline(), process.stdout.readline()], ["counting\n", "moved 0\n"])
                    self.assertTrue(wait_until(lambda: "all pages are here" in self.log_of(1)))
                    krgd, already = self.krgd_of(victim), len(self.log_of(speaks))
                    (self.work / "go").touch()
                    end = time.monotonic() + 10
                    while phase not in self.log_of(speaks)[already:] and time.monotonic() < end:
                        pass
                    os.kill(krgd, signal.SIGKILL)
                    self.assertLess(time.monotonic(), end, "no such phase")
                    self.assertIn(f"node {victim} has failed", process.stderr.readline())
                    before = len(self.numbers()[0])
                    if not wait_until(lambda known=before, shell=process: shell.poll() is not None or len(self.numbers()[0]) > known + 20):
                        self.fail("it neither goes on nor has ended")
                    self.assert_one_went_on_or_was_killed(process, self.ended(process, 2))

    def log_of(self, node):
        return next(self.state.glob(f"*/n{node}/krgd.log")).read_text(encoding="utf-8", errors="replace")

    @staticmethod
    def has_ended_thread(pid):
        """Whether the main thread has; others may still be there."""
        try:
            return pathlib.Path(f"/proc/{pid}/task/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
        except OSError:
            return True

    # Its home has yet to hear that it is at node 2, which is told once node 1 has died: what node 1 still has of it must not run.
    def test_the_node_that_it_has_just_left_dies(self):
        (self.work / "counter.py").write_text(FAST_COUNTER, encoding="ascii")
        process = self.start("krgrun", "-N", str(NODES), "--caps=+CAN_MIGRATE", "bash", "-c", MOVED_ONCE)
        self.assertEqual([process.stdout.readline(), process.stdout.readline()], ["counting\n", "moved 0\n"])
        home, left = self.krgd_of(0), self.krgd_of(1)
        self.assertTrue(wait_until(lambda: "n1" in self.numbers()[1]))
        os.kill(home, signal.SIGSTOP)
        try:
            (self.work / "go").touch()
            self.assertTrue(wait_until(lambda: ": answered" in self.log_of(1)))
            time.sleep(0.1)  # what it does then is to tell the home
            with LastThreadToEnd(left):
                os.kill(left, signal.SIGKILL)
                wait_until(lambda: self.has_ended_thread(left))
                time.sleep(0.1)  # what may run now does
        finally:
            os.kill(home, signal.SIGCONT)
        # Where node 0 stood still for so long that it was taken for dead, all has ended.
        wait_until(lambda: process.poll() is not None or "n2" in self.numbers()[1])
        (self.work / "end").touch()
        self.ended(process)
        self.assert_counted_once()
        self.assert_nothing_left()

    def test_the_process_dies(self):
        (self.work / "counter.py").write_text(COUNTER, encoding="ascii")
        chance = random.Random(4712)
        rounds = "".join(MOVING.replace("& pid=$!\n", f"& pid=$!\n( until [ -s counted ]; do sleep 0.1; done; sleep {chance.random():.3f}; "
                                        "kill -9 $pid ) &\n") for _ in range(4))
        result = self.krgrun("bash", "-c", rounds, nodes=NODES, caps="--caps=+CAN_MIGRATE")
        self.assertEqual(result.stdout.split(), ["counting", "ended", "137"] * 4, result.stderr)
        self.assert_counted_once()
        self.assert_nothing_left()


if __name__ == "__main__":
    session_case.main()
