"""Families whose trees are not those of a simple shell: orphans, daemons, sessions and groups whose leaders have ended.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE,+CAN_MIGRATE"

# Makes processes in all kinds of places, tells where each is, saves itself, tells it again: who restarts it sees the latter alone.
TREE = """
import os, signal, subprocess, sys, time
told, tell = os.pipe()
def wait_here():
    while True: signal.pause()
def process(name, work=lambda: None):
    '''A child that does `work`, then waits; its pid is told when it has begun to wait.'''
    pid = os.fork()
    if pid == 0:
        work()
        os.write(tell, b"%s %d\\n" % (name.encode(), os.getpid()))
        wait_here()
    return pid
def ends(work):
    '''A child that does `work` and ends.'''
    pid = os.fork()
    if pid == 0: work(); os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    return pid

def grouped():  # of a group whose leader ends
    gate, open_gate = os.pipe()
    leader = os.fork()
    if leader == 0:
        os.setpgid(0, 0); os.close(open_gate); os.read(gate, 1); os._exit(0)
    os.close(gate)
    time.sleep(0.05)
    try: os.setpgid(leader, leader)
    except OSError: pass
    mine = process("in a group", lambda: (os.close(open_gate), os.setpgid(0, leader)))
    while os.getpgid(mine) != leader: time.sleep(0.01)
    os.close(open_gate); os.waitpid(leader, 0)
    return leader, mine
def daemon():
    os.setsid(); process("daemon")
def leads_orphan():
    process("orphan that leads", lambda: (os.setsid(), process("its child")))
def elder():  # makes one child before it leads a session, one afterwards, and an orphan
    process("elder")
    os.setsid(); process("younger"); ends(lambda: process("orphan of the session"))

group, member = grouped()
ends(lambda: process("orphan")); ends(daemon); ends(leads_orphan); process("leader", elder)
names = 9
lines = b""
while lines.count(b"\\n") < names: lines += os.read(told, 999)
os.close(tell)
pids = {name: int(pid) for name, pid in (line.rsplit(" ", 1) for line in lines.decode().splitlines())}
MOVES
known = {pid: name for name, pid in pids.items()}
known[os.getpid()] = "root"
def place(pid):
    with open("/proc/%d/status" % pid) as status: parent = int(dict(line.split(":", 1) for line in status)["PPid"])
    call = lambda number: known.get(number, number) if number not in (os.getpgrp(), os.getsid(0)) else "outer"
    return "%d: under %s, group %s, session %s" % (pid, known.get(parent, parent), call(os.getpgid(pid)), call(os.getsid(pid)))
def tell_all():
    for name, pid in sorted(pids.items()): print(name, place(pid))
tell_all(); sys.stdout.flush()
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
print("saved"); tell_all()
os.killpg(group, signal.SIGTERM)
print(os.waitpid(member, 0)[1], os.getpgrp() != group)
os.killpg(os.getsid(pids["daemon"]), signal.SIGKILL)
for name, pid in pids.items():
    if name not in ("in a group", "daemon"): os.kill(pid, signal.SIGKILL)
while os.read(told, 1): pass  # all that have the other end
print("all have ended")
"""

# Whose children's children come to it when their makers end (PR_SET_CHILD_SUBREAPER): of sessions that it was never in, one of which has its leader still.
ADOPTERS = """
import ctypes, os, signal, subprocess, sys
told, tell = os.pipe()
def wait_here(name):
    os.write(tell, b"%s %d\\n" % (name.encode(), os.getpid()))
    while True: signal.pause()
def fork(work):
    pid = os.fork()
    if pid == 0: work(); os._exit(0)
    return pid
def ends(work):
    assert os.waitpid(fork(work), 0)[1] == 0
def adopts():
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
def in_ended_session(name):
    def work(): os.setsid(); fork(lambda: wait_here(name))
    ends(work)
def leads():
    os.setsid(); ends(lambda: fork(lambda: wait_here("of the leader's"))); wait_here("leader")
def other():
    adopts(); in_ended_session("of the other's"); wait_here("other")
adopts()
in_ended_session("own"); fork(leads); fork(other)
names = 5
lines = b""
while lines.count(b"\\n") < names: lines += os.read(told, 999)
pids = {name: int(pid) for name, pid in (line.rsplit(" ", 1) for line in lines.decode().splitlines())}
def place(pid):
    with open("/proc/%d/status" % pid) as status: return dict(line.split(":", 1) for line in status)["PPid"].strip(), os.getpgid(pid), os.getsid(pid)
def tell_all():
    for name, pid in sorted(pids.items()): print(name, pid, *place(pid))
tell_all(); sys.stdout.flush()
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
print("saved"); tell_all()
for name in ("own", "of the leader's"):
    os.kill(pids[name], signal.SIGTERM); print(os.waitpid(pids[name], 0)[1])
os.kill(pids["other"], signal.SIGTERM); os.waitpid(pids["other"], 0)
for name in ("of the other's", "leader"):  # it has come here
    os.kill(pids[name], signal.SIGTERM); print(os.waitpid(pids[name], 0)[1])
"""

# What a shell leaves behind, which works on when it has ended; it is heard of by a pipe that the first shell reads.
LEFT_BEHIND = """
set -m
(bash -c 'for i in {1..60}; do echo $i; sleep 0.03; [ $i = 50 ] && until [ -e end ]; do sleep 0.02; done; done | (read first; echo $first; cat) | tee heard >told' &) &
wait; touch ready
exec cat told
"""


# Its processes have files of /proc of their own and of each other's open, some of them read in part.
OPEN = """
import os, subprocess
ready, tell = os.pipe(); gate, open_gate = os.pipe()
child = os.fork()
if child == 0:
    stat, name, fds = open("/proc/self/stat"), open("/proc/thread-self/comm"), os.open("/proc/self/fd", os.O_RDONLY)
    part = os.open("/proc/self/status", os.O_RDONLY); os.read(part, 5)
    oom = os.open("/proc/self/oom_score_adj", os.O_RDWR)
    os.write(tell, b"x"); os.read(gate, 1); os.write(oom, b"7")
    print(stat.read().split()[0] == str(os.getpid()), name.read(), str(fds) in os.listdir(fds), os.read(part, 9), open("/proc/self/oom_score_adj").read(), flush=True)
    os._exit(3)
os.read(ready, 1)
own, others = open("/proc/self/maps"), open("/proc/%d/stat" % child)
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
print("[stack]" in own.read(), others.read().split()[0] == str(child), flush=True)
os.write(open_gate, b"x"); print(os.waitpid(child, 0)[1] >> 8)
"""


class CheckpointTreeTest(CheckpointCase):
    def check_tree(self, moves, nodes, restart_nodes):
        (self.work / "work.py").write_text(TREE.replace("MOVES", moves), encoding="utf-8")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=nodes)
        self.assertEqual((first.returncode, first.stderr), (0, ""), first.stdout)
        before, after = first.stdout.split("saved\n")
        self.assertTrue(after.startswith(before), first.stdout)
        self.assertRegex(before, r"(?m)^orphan \d+: under 1, group outer, session outer$")
        self.assertRegex(before, r"(?m)^daemon \d+: under 1, group \d+, session \d+$")
        self.assertRegex(before, r"(?m)^orphan of the session \d+: under 1, group leader, session leader$")
        for number in restart_nodes:
            again = self.restart("-N", str(number))
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "saved\n" + after, ""))

    def test_places(self):
        self.check_tree("", 1, (1, 2))

    def test_places_of_members_on_several_nodes(self):
        moves = "\n".join(f'subprocess.run(["krg_migrate", str(pids["{name}"]), "{node}"], check=True)'
                          for name, node in (("orphan", 1), ("daemon", 2), ("younger", 1), ("orphan that leads", 2)))
        self.check_tree(moves, 3, (3, 1))

    def test_adopted_by_members(self):
        (self.work / "work.py").write_text(ADOPTERS, encoding="utf-8")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""), first.stdout)
        before, after = first.stdout.split("saved\n")
        self.assertEqual(after, before + "15\n" * 4)
        places = {name: tuple(map(int, numbers)) for name, *numbers in (line.rsplit(None, 4) for line in before.splitlines())}
        self.assertEqual(places["own"][1], places["leader"][1], before)  # the root
        self.assertEqual(places["of the leader's"][1], places["own"][1], before)
        self.assertEqual(places["of the other's"][1], places["other"][0], before)
        for number in (1, 2):
            again = self.restart("-N", str(number))
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "saved\n" + after, ""))

    def test_files_of_proc_of_members(self):
        (self.work / "work.py").write_text(OPEN, encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        wanted = "True True\nTrue python3\n True b'\\tpython3\\n' 7\n\n3\n"
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, wanted, ""))
        for number in (1, 2):
            again = self.restart("-N", str(number))
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, wanted, ""))

    def test_a_job_in_the_background_of_a_shell_that_has_ended(self):
        (self.work / "script").write_text("mkfifo told 2>/dev/null\n" + LEFT_BEHIND, encoding="ascii")
        self.compare("bash", "script")
        self.assertEqual((self.work / "heard").read_text().split(), [str(i) for i in range(1, 61)])


if __name__ == "__main__":
    session_case.main()
