"""Whatever is killed while a forked child begins elsewhere: it runs once, or it dies and its parent is told.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import signal

import session_case
from launcher_case import LauncherCase, wait_until

NODES = 3
EXIT = 7
LIMIT_S = 60  # a node that is killed may be missed by its silence only

# Pages: those of a small process, and of one whose children begin before all memory has been copied.
SIZES = (1024, 32768)
# Each child counts, with memory that does not all go along at once. What the parent hears of it stands in another file.
FORKER = """
import os, sys
ballast = bytearray(os.urandom(4096) * int(sys.argv[1]))
counted = os.open("counted", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
ended = os.open("ended", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
number = 0
while not os.path.exists("end"):
    child = os.fork()
    if child == 0:
        right = ballast[number * 4099 % len(ballast)] == ballast[number * 4099 % 4096]
        os.write(counted, b"%d %s\\n" % (number, os.uname().nodename.encode()))
        os._exit(7 if right else 1)
    os.write(ended, b"%d %d\\n" % (number, os.waitpid(child, 0)[1]))
    number += 1
"""
# Kills the forker's children, wherever they are on their way.
KILLING = """
/usr/bin/python3 forker.py $0 & pid=$!
while [ ! -e end ]; do
  kill -9 $(ps -o pid= --ppid $pid) 2>/dev/null
  sleep 0.0$((RANDOM % 10))
done
wait $pid
"""
# A setting that a process cannot take along, which is seen when the target has begun.
REFUSED = """
import ctypes, os
PR_SET_SECUREBITS, KEEP_CAPS = 28, 1 << 4
if ctypes.CDLL(None).prctl(PR_SET_SECUREBITS, KEEP_CAPS) != 0: raise OSError("PR_SET_SECUREBITS")
text = os.open("text", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
read, write = os.pipe()
for number in range(10):
    child = os.fork()
    if child == 0:
        os.write(text, b"%d" % number)
        os.write(write, os.uname().nodename.encode() + b" ")
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0: raise ChildProcessError(number)
os.close(write)
print(os.uname().nodename, set(os.read(read, 4096).split()), open("text", "rb").read())
"""


class ForkFaults(LauncherCase):
    def environment(self, **more):
        return super().environment(KRG_LOG="fork:debug,*:warn", KRG_LOG_FILE=str(self.work / "log"), **more)

    def start_forking(self, *command):
        for name in ("counted", "ended", "end"):
            (self.work / name).unlink(missing_ok=True)
        (self.work / "forker.py").write_text(FORKER, encoding="ascii")
        return self.start("krgrun", "-N", str(NODES), "--caps=+DISTANT_FORK", *command)

    def lines_of(self, name):
        path = self.work / name
        if not path.exists():
            return []
        return [line.split() for line in path.read_text(encoding="ascii").split("\n")[:-1]]

    def hosts(self):
        return {host for _, host in self.lines_of("counted")}

    def assert_each_ran_once(self):
        """Returns how many were killed."""
        counted = [int(number) for number, _ in self.lines_of("counted")]
        self.assertEqual(len(counted), len(set(counted)), "two copies of a child ran")
        ends = {int(number): os.waitstatus_to_exitcode(int(status)) for number, status in self.lines_of("ended")}
        self.assertLessEqual(set(ends.values()), {EXIT, -signal.SIGKILL})
        self.assertLessEqual({number for number, end in ends.items() if end == EXIT}, set(counted))
        return list(ends.values()).count(-signal.SIGKILL)

    def finish(self, process):
        (self.work / "end").touch()
        self.assertEqual(process.wait(LIMIT_S), 0, process.stderr.read())

    def test_nodes_die(self):
        for pages in SIZES:
            with self.subTest(pages=pages):
                self.nodes_die(pages)

    def nodes_die(self, pages):
        process = self.start_forking("/usr/bin/python3", "forker.py", pages)
        chance = random.Random(4713)
        self.assertTrue(wait_until(lambda: len(self.hosts()) == NODES, LIMIT_S), self.hosts())
        for node in (1, 2):
            count = len(self.lines_of("ended")) + chance.randrange(20)
            self.assertTrue(wait_until(lambda: len(self.lines_of("ended")) > count, LIMIT_S))  # pylint: disable=cell-var-from-loop
            os.kill(self.krgd_of(node), signal.SIGKILL)
            self.assertIn(f"node {node} has failed", process.stderr.readline())
            count = len(self.lines_of("ended"))
            self.assertTrue(wait_until(lambda: len(self.lines_of("ended")) > count + 20, LIMIT_S))  # pylint: disable=cell-var-from-loop
        self.finish(process)
        self.assertLessEqual(self.assert_each_ran_once(), 2)  # those that were there
        self.assert_nothing_left()

    def test_children_die(self):
        for pages in SIZES:
            with self.subTest(pages=pages):
                process = self.start_forking("bash", "-c", KILLING, pages)
                enough = 200 if pages == SIZES[0] else 60
                self.assertTrue(wait_until(lambda least=enough: len(self.hosts()) == NODES and len(self.lines_of("ended")) > least, LIMIT_S))
                self.finish(process)
                self.assert_each_ran_once()
                self.assert_nothing_left()

    # It stays where it is, with its descriptors, which the target had already.
    def test_a_child_that_cannot_go(self):
        if self.as_user:
            return  # who has no privilege cannot have the setting
        (self.work / "refused.py").write_text(REFUSED, encoding="ascii")
        result = self.krgrun("/usr/bin/python3", "refused.py", nodes=NODES, caps="--caps=+DISTANT_FORK")
        self.assertEqual((result.stdout.strip(), result.stderr), ("n0 {b'n0'} b'0123456789'", ""))
        self.assertIn("securebits", (self.work / "log").read_text(encoding="utf-8"))
        self.assert_nothing_left()


if __name__ == "__main__":
    session_case.main()
