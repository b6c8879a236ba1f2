"""A node is killed that has pages of memory which others share: what somebody else has a copy of goes on, who touches what is
lost gets SIGBUS, its locks are free, and nobody waits for ever. SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import signal
import threading

import session_case
from launcher_case import LauncherCase

NODES = 3

# On the node that is killed: it writes pages so far apart that it gets no others with them.
FAR = """
import fcntl, mmap, os, time
while not os.path.exists("moved"): time.sleep(0.01)
file = os.open("/dev/shm/pages", os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX)
fcntl.flock(file, fcntl.LOCK_EX)
memory = mmap.mmap(file, 512 * 4096)
for page, text in ((0, b"kept"), (100, b"lost"), (300, b"mine")): memory[page * 4096:page * 4096 + 4] = text
os.write(1, f"{os.uname().nodename} has written\\n".encode())
while True: time.sleep(1)
"""

# On the first node: it has a copy of page 0, and touches the others when the node has gone, in a child of its own each. Two
# children wait for the locks of who is lost with it.
NEAR = """
import fcntl, mmap, os, signal, sys
def waiting(lock):
    child = os.fork()
    if child != 0: return child
    file = os.open("/dev/shm/pages", os.O_RDWR)
    try: lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB); os._exit(1)
    except BlockingIOError: lock(file, fcntl.LOCK_EX)
    os._exit(0)
waiters = [waiting(fcntl.lockf), waiting(fcntl.flock)]
file = os.open("/dev/shm/pages", os.O_RDWR)
memory = mmap.mmap(file, 512 * 4096)
def text(page): return memory[page * 4096:page * 4096 + 4]
def tell(what): os.write(1, f"{what}\\n".encode())
tell(text(0).decode())
sys.stdin.readline()
tell(text(0).decode())
memory[0:4] = b"anew"
tell(text(0).decode())
tell(text(500) == bytes(4))
for page, write in ((100, False), (300, True)):
    child = os.fork()
    if child == 0:
        if write: memory[page * 4096] = 1
        else: text(page)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    tell(signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"page {page}: exit {status}")
for child in waiters: tell("lock" if os.waitpid(child, 0)[1] == 0 else "no lock")
"""

SESSION = """
exec 3>&2 2>/dev/null
truncate -s 2M /dev/shm/pages
/usr/bin/python3 far.py & far=$!
krg_migrate $far 2 2>&3; : >moved
read written
/usr/bin/python3 near.py
rm /dev/shm/pages; wait $far; echo far $?
"""


class SharedLoss(LauncherCase):
    def setUp(self):
        super().setUp()
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def test_pages_of_a_node_that_dies(self):
        for name, text in (("far.py", FAR), ("near.py", NEAR)):
            (self.work / name).write_text(text, encoding="ascii")
        process = self.start("krgrun", "-N", str(NODES), "--caps=+CAN_MIGRATE", "bash", "-c", SESSION, stdin=self.pipe())
        lines = self.lines_of(process, 60)
        self.assertEqual(next(lines), "n2 has written")
        self.say("go")
        self.assertEqual(next(lines), "kept")
        os.kill(self.krgd_of(2), signal.SIGKILL)
        self.assertIn("node 2 has failed", process.stderr.readline())
        self.say("gone")
        self.assertEqual(list(lines), ["kept", "anew", "True", "SIGBUS", "SIGBUS", "lock", "lock", f"far {128 + signal.SIGKILL}"])
        process.wait(20)
        self.assert_nothing_left()

    def pipe(self):
        reader, writer = os.pipe()
        self.writer = open(writer, "w", encoding="ascii", closefd=True)
        self.addCleanup(self.writer.close)
        self.addCleanup(os.close, reader)
        if self.as_user and os.geteuid() == 0:
            os.fchown(reader, session_case.NOBODY, session_case.NOBODY)
        return reader

    def say(self, line):
        self.writer.write(line + "\n")
        self.writer.flush()

    @staticmethod
    def lines_of(process, limit_s):
        """What it writes; it is killed when it takes too long."""
        timer = threading.Timer(limit_s, process.kill)
        timer.start()
        try:
            for line in process.stdout:
                yield line.rstrip("\n")
        finally:
            timer.cancel()


if __name__ == "__main__":
    session_case.main()
