"""Forks of processes with much memory, whose children begin elsewhere before all of that has been copied.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from launcher_case import LauncherCase
from session_case import BUSY

NODES = 2
CHILDREN = 4
LIMIT_S = 120
# It stays here, and its children go to the other node.
HERE = f"{BUSY}\nsleep 0.3; /proc/self/root/usr/bin/python3"

MEMORY = """
import mmap, os, sys
PAGE = 4096
memory = mmap.mmap(-1, 128 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)  # of huge ones fork(2) copies little, and is left to it
def fill(tag):
    for at in range(0, len(memory), PAGE): memory[at:at + 8] = (tag + at).to_bytes(8, "little")
def has(tag):
    return all(memory[at:at + 8] == (tag + at).to_bytes(8, "little") for at in range(0, len(memory), PAGE))
"""
# Each child looks when its parent has changed all of its memory, and changes all of its own. Fork(2) locks none of it.
COPIES = MEMORY + """
import ctypes
locked = ctypes.create_string_buffer(4096)
if ctypes.CDLL(None).mlock(locked, 4096) != 0: raise OSError("mlock")
def has_locked():
    return any(line.startswith("VmLck") and int(line.split()[1]) > 0 for line in open("/proc/self/status"))
if not has_locked(): raise OSError("nothing is locked")
for number in range(int(sys.argv[1])):
    fill(number)
    (changed, tells), (reads, writes) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.read(changed, 1)
        right = has(number) and not has_locked()
        fill(number + 1000)
        os.write(writes, os.uname().nodename.encode())
        os._exit(3 if right and has(number + 1000) else 1)
    fill(number + 2000)
    os.write(tells, b"!")
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), has(number + 2000), os.read(reads, 99).decode())
    for fd in changed, tells, reads, writes: os.close(fd)
"""
# Its children cannot go along: their parent's offset of a file is theirs, too.
STAYS = MEMORY + """
import signal
ends = 0
def count(*_):
    global ends
    ends += 1
signal.signal(signal.SIGCHLD, count)
file = os.open("file", os.O_RDWR | os.O_CREAT)
read, write = os.pipe()
fill(1)
for number in range(10):
    child = os.fork()
    if child == 0:
        os.write(file, b"%d" % number)
        os.write(write, os.uname().nodename.encode() + b" ")
        os._exit(3 if has(1) else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 3: raise ChildProcessError(number)
print(set(os.read(read, 999).split()), ends, open("file").read())
"""
# Says so before it forks, and then waits for its end. Its child looks at all of the memory.
DIES = MEMORY + """
import signal
fill(5)
os.write(1, b"forks\\n")
if os.fork() == 0:
    os.write(1, b"child %s\\n" % (b"right" if has(5) else b"wrong"))
    os._exit(0)
signal.pause()
"""
# Kills such a forker at some time after that; the pipe ends when nobody is left.
KILLING = """
import os, random, signal, subprocess, sys, time
chance = random.Random(4711)
for _ in range(12):
    forker = subprocess.Popen(["/proc/self/root/usr/bin/python3", "dies.py"], stdout=subprocess.PIPE)
    said = forker.stdout.readline()
    time.sleep(chance.random() * 0.03)
    forker.kill()
    print(said + forker.stdout.read(), forker.wait())
"""


class LargeForks(LauncherCase):
    def environment(self, **more):
        return super().environment(KRG_LOG="image:trace,fork:debug,*:warn", KRG_LOG_FILE=str(self.work / "log"), **more)

    def run_here(self, program, *arguments):
        (self.work / "log").unlink(missing_ok=True)
        (self.work / "program.py").write_text(program, encoding="ascii")
        out = self.shell(f"{HERE} program.py {' '.join(arguments)}", nodes=NODES, timeout=LIMIT_S)
        return out.split("\n"), (self.work / "log").read_text(encoding="utf-8", errors="replace")

    def test_parent_and_child_have_copies(self):
        lines, log = self.run_here(COPIES, str(CHILDREN))
        self.assertEqual([line.split()[:2] for line in lines], [["3", "True"]] * CHILDREN)
        self.assertIn("n1", {line.split()[2] for line in lines})
        self.assertIn("its forker's memory is copied", log)
        self.assert_nothing_left()

    def test_a_child_that_cannot_go(self):
        """It is made again, whole; after some such nothing else is tried for a while."""
        lines, log = self.run_here(STAYS)
        self.assertEqual(lines, ["{b'n0'} 10 0123456789"])
        self.assertIn(log.count("is not made on node"), range(1, 5))
        self.assert_nothing_left()

    def test_the_forker_is_killed(self):
        """Its child has all of its memory, or dies."""
        (self.work / "dies.py").write_text(DIES, encoding="ascii")
        lines, _ = self.run_here(KILLING)
        self.assertLessEqual(set(lines), {r"b'forks\n' -9", r"b'forks\nchild right\n' -9"})
        self.assertEqual(len(lines), 12)
        self.assert_nothing_left()


if __name__ == "__main__":
    session_case.main()
