"""Families over several nodes that are saved at random instants, killed, and go on in clusters of other sizes.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import signal
import time

import session_case
from checkpoint_case import CheckpointCase

# Three processes on three nodes hand numbers round by pipes, so that some are always in flight; then all end, each as it should.
RING = """
import hashlib, os, subprocess, sys, time
def pipe_of(): return [os.fdopen(fd, mode) for fd, mode in zip(os.pipe(), "rw")]
def pass_on(source, target, name):
    state = name.encode()
    for line in source:
        for i in range(300): state = hashlib.md5(state + line.encode()).digest()
        target.write("%s %s\\n" % (line.strip(), state.hex()[:8])); target.flush()
    target.close()
(r1, w1), (r2, w2), (r3, w3) = pipe_of(), pipe_of(), pipe_of()
children = []
for source, target, status in ((r1, w2, 3), (r2, w3, 4)):
    pid = os.fork()
    if pid == 0:
        for other in (r1, w1, r2, w2, r3, w3):
            if other not in (source, target): other.close()
        pass_on(source, target, "child%d" % status)
        os._exit(status)
    children.append(pid)
for mine in (r1, w2, r2, w3): mine.close()
for node, pid in enumerate(children): subprocess.run(["krg_migrate", str(pid), str(node + 1)], check=True)
open("ready", "w").close()
before, sent = (os.getpid(), os.getppid(), children), 0
for step in range(150):
    while sent < step + 8: w1.write("%d\\n" % sent); w1.flush(); sent += 1
    print(r3.readline().strip(), flush=True)
    time.sleep(0.02)
    while step == 140 and not os.path.exists("end"): time.sleep(0.01)
w1.close()
rest = r3.read().split("\\n")
assert before == (os.getpid(), os.getppid(), children)
print(len(rest), [os.waitpid(pid, 0)[1] >> 8 for pid in children])
"""

# The build is frozen when it is half-way, saved, and stands until it is killed with all else.
BUILD = """
krg_capset -e -CHECKPOINTABLE
(krg_capset -e +CHECKPOINTABLE $BASHPID; exec make -j4) & make=$!
until [ "$(ls *.o 2>/dev/null | wc -l)" -ge 3 ]; do sleep 0.02; done
krg_checkpoint freeze $make && krg_checkpoint -o ckpt $make >>log && touch saved || exit 3
sleep 1000
"""

# Forked to other nodes: each computes, writes to a file of its own and to its parent, and ends with a status.
FORKS = """
import hashlib, os, sys, time
r, w = os.pipe()
children = []
for me in range(4):
    pid = os.fork()
    if pid == 0:
        os.close(r); state = b"%d" % me
        with open("out%d" % me, "w") as out:
            for step in range(40):
                for i in range(4000): state = hashlib.md5(state).digest()
                print(step, state.hex(), file=out, flush=True); time.sleep(0.03)
                while step == 35 and not os.path.exists("end"): time.sleep(0.01)
        os.write(w, b"%d %s\\n" % (me, state.hex().encode()))
        os._exit(me + 5)
    children.append(pid)
os.close(w); open("ready", "w").close()
with os.fdopen(r) as told: print(sorted(told.read().split("\\n")))
print([os.waitpid(pid, 0)[1] >> 8 for pid in children], [open("out%d" % me).read() for me in range(4)])
"""


# Forks all the time; each child looks at memory that its forker has had from elsewhere, perhaps before that itself has.
FORKER = """
import os
memory = bytearray(os.urandom(1 << 20) * 128)
open("ready", "w").close()
while not os.path.exists("end"):
    child = os.fork()
    if child == 0: os._exit(memory[::4096] == memory[:1 << 20:4096] * 128)
    assert os.waitpid(child, 0)[1] == 1 << 8
print("as it was", flush=True)
"""

# It is moved and at once saved, again and again.
MOVES = """
krg_capset -e +CHECKPOINTABLE
python3 forker.py >output & forker=$!
until [ -e ready ]; do sleep 0.02; done
for node in 1 0 1; do
    until krg_migrate $forker $node 2>>refusals; do sleep 0.05; done  # a child is on the node that it has left
    krg_checkpoint -o ckpt $forker >>log || exit 3
done
touch saved; wait $forker
"""


# One of two applications; its child is on another node. Each tells its number when there is a file "end".
ONE_OF_TWO = """
import os, subprocess, sys, time
def rest():
    while not os.path.exists("end"): time.sleep(0.02)
child = os.fork()
if child == 0:
    rest()
    os._exit(int(sys.argv[1]))
subprocess.run(["krg_migrate", str(child), "2"], check=True)
open("ready" + sys.argv[1], "w").close()
rest()
print("application", os.waitpid(child, 0)[1] >> 8, flush=True)
"""
TWO = """
krg_capset -d +CHECKPOINTABLE
/usr/bin/python3 work.py 1 & first=$!
/usr/bin/python3 work.py 2 & second=$!
krg_capset -d -CHECKPOINTABLE
until [ -e ready1 ] && [ -e ready2 ]; do sleep 0.02; done
krg_migrate $second 1 && krg_checkpoint --all -o all >log || exit 3
echo $first $second >pids; wait
"""


class CheckpointNodesTest(CheckpointCase):
    def write(self, name, text):
        (self.work / name).write_text(text, encoding="ascii")

    def shown(self, *arguments):
        return self.run_program(["krg_checkpoint", *arguments], check=True).stdout

    def ring_output(self):
        """What the ring prints where nothing moves or interrupts it."""
        self.write("alone.py", "\n".join(line for line in RING.split("\n") if "krg_migrate" not in line and "ready" not in line))
        return self.native("/usr/bin/python3", "alone.py")

    def test_pipes_between_nodes(self):
        """On fewer nodes, on one, on more."""
        self.write("work.py", RING)
        out = self.interrupted("/usr/bin/python3", "work.py", times=3, nodes=(3, 2, 1, 4), caps=["--caps=+CAN_MIGRATE"], ready="ready")
        self.assertEqual(out, self.ring_output())
        shown = self.shown("show", "ckpt", "1")
        for node in range(3):
            self.assertIn(f"on node {node}", shown)
        self.assertTrue((self.work / "ckpt/v1.n2.h5").exists())

    def test_all_applications_of_the_cluster(self):
        self.write("work.py", ONE_OF_TWO)
        self.write("two", TWO)
        process = self.start("-N", "3", "--caps=+CAN_MIGRATE", "bash", "two")
        self.wait_for_file("pids", process)
        self.end(process)
        pids = (self.work / "pids").read_text(encoding="ascii").split()
        self.assertEqual(sorted(path.name for path in (self.work / "all").iterdir()), sorted(pids))
        self.write("end", "")
        for number, pid in enumerate(pids, 1):
            self.restart(folder=f"all/{pid}", check=True)  # writes from where the file ended
            self.assertEqual((self.work / "out").read_text(encoding="ascii"), f"application {number}\n")

    def test_forks_on_other_nodes(self):
        self.write("work.py", FORKS)
        out = self.interrupted("/usr/bin/python3", "work.py", times=2, nodes=(3,), caps=["--caps=+DISTANT_FORK"], ready="ready")
        native = self.native("/usr/bin/python3", "work.py")
        self.assertEqual(out, native)

    def test_a_build_goes_on(self):
        """make -j4 with compilers on three nodes: frozen, saved and killed half-way; it goes on on two, and makes what a build in one go makes."""
        parts = [f"part{number:02}" for number in range(12)]
        for part in parts:
            functions = "".join(f"int {part}_{n}(int x) {{ return x * {n} + {part}_{n - 1}(x % {n + 1}); }}\n" for n in range(1, 150))
            (self.work / f"{part}.c").write_text(f"int {part}_0(int x) {{ return x; }}\n{functions}", encoding="ascii")
        (self.work / "Makefile").write_text("OBJECTS := $(patsubst %.c,%.o,$(wildcard part*.c))\nall: $(OBJECTS)\n%.o: %.c\n\tgcc -g0 -O1 -c $< -o $@\n",
                                            encoding="ascii")
        (self.work / "build").write_text(BUILD, encoding="ascii")
        self.native("make", "-j4")
        expected = self.objects()
        for name in expected:
            (self.work / name).unlink()
        process = self.start("-N", "3", "--caps=+DISTANT_FORK,+CHECKPOINTABLE", "bash", "build")
        for _ in range(1200):
            if (self.work / "saved").exists():
                break
            self.assertIsNone(process.poll(), self.errors())
            time.sleep(0.05)
        self.end(process)
        self.assertTrue((self.work / "saved").exists(), self.errors())
        self.assertLess(len(self.objects()), len(parts))
        done = self.restart("-N", "2")
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertEqual(self.objects(), expected)

    def objects(self):
        return {path.name: path.read_bytes() for path in self.work.glob("*.o")}

    def test_just_after_a_move(self):
        """Pages are still on their way to it, and to those whom it forks: that is waited for."""
        self.write("forker.py", FORKER)
        self.write("script", MOVES)
        process = self.start("-N", "2", "--caps=+CAN_MIGRATE,+CHECKPOINTABLE", "bash", "script")
        for _ in range(1200):
            if (self.work / "saved").exists():
                break
            self.assertIsNone(process.poll(), self.errors())
            time.sleep(0.05)
        self.assertTrue((self.work / "saved").exists(), self.errors())
        self.end(process)
        self.write("end", "")
        done = self.restart("-N", "2")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual((self.work / "output").read_text(encoding="ascii"), "as it was\n")

    def test_whatever_dies_the_last_version_is_whole(self):
        self.write("work.py", RING.replace("range(150)", "range(100000)").replace("time.sleep(0.02)", "time.sleep(0.001)"))
        self.write("end", "")
        chance = random.Random(7)
        process = self.start("-N", "3", f"--checkpoint-dir={self.work / 'ckpt'}", "--keep=2", "--caps=+CAN_MIGRATE",
                             "/usr/bin/python3", "work.py")
        last = 0
        for victim in (1, 0, 2):
            while not (self.work / "ready").exists():
                time.sleep(0.02)
            process.send_signal(signal.SIGUSR1)
            self.wait_for_version(last + 1, process)
            last = self.versions()[-1]
            process.send_signal(signal.SIGUSR1)
            time.sleep(chance.uniform(0.01, 0.12))
            os.kill(self.krgd_of(process, victim), signal.SIGKILL)
            process.wait(30)
            self.end(process)
            last = self.versions()[-1]
            self.assertIn(f"version {last}: whole", self.shown("verify", "ckpt", str(last)))
            process = self.start("-N", "3", f"--checkpoint-dir={self.work / 'ckpt'}", "--keep=2", f"--restart={self.work / 'ckpt'}")
            self.wait_until_it_prints(process)
        self.end(process)

    def wait_until_it_prints(self, process):
        before = (self.work / "out").stat().st_size
        for _ in range(400):
            if (self.work / "out").stat().st_size > before:
                return
            self.assertIsNone(process.poll(), self.errors())
            time.sleep(0.05)
        self.fail("it does not go on: " + self.errors())


if __name__ == "__main__":
    session_case.main()
