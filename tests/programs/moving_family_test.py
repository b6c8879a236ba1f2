"""A mixed family of processes whose members are moved around four nodes at random moments: each does what it does natively.
Environment: KRG_STRESS_SECONDS (how long; 4), KRG_STRESS_SEED (which moves), KRG_STRESS_ONLY (names of features).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import signal
import subprocess
import threading
import time

import session_case
from session_case import SessionCase

SECONDS = int(os.environ.get("KRG_STRESS_SECONDS", "4"))
SEED = int(os.environ.get("KRG_STRESS_SEED", str(random.randrange(1 << 15))))
ONLY = os.environ.get("KRG_STRESS_ONLY", "").split()

# Starts $names of $programs in the background, each with its output in a file, and moves them until they have all ended. What takes
# longer than two seconds is told.
STRESS = """
RANDOM=$seed; SECONDS=0; declare -A what; moves=0
for program in $programs; do for name in $names; do
  $program $name $ms >$name.${program##*/}.out 2>&1 & what[$!]=$name.${program##*/}
done; done
while [ ${#what[@]} -gt 0 ] && [ $SECONDS -lt $end ]; do
  pids=(${!what[@]}); pid=${pids[$((RANDOM % ${#pids[@]}))]}; node=$((RANDOM % 4))
  # One that has ended is waited for by its parent only here: kill -0 would say that it is there.
  state=; { read -r _ _ state _ </proc/$pid/stat; } 2>/dev/null
  if [ "$state" = Z -o -z "$state" ]; then
    wait $pid || echo "${what[$pid]} $pid: status $?"; unset what[$pid]; continue
  fi
  # Its child is stopped and waited for: that one moves, too.
  case ${what[$pid]} in stopped.*) [ $((RANDOM % 2)) = 0 ] || pid=$(cat child.$pid 2>/dev/null) || continue;; esac
  began=${EPOCHREALTIME/./}
  krg_migrate $pid $node 2>refusal && moves=$((moves + 1)) || sed "s/^/${what[$pid]} to $node: /" refusal >>refusals
  took=$(((${EPOCHREALTIME/./} - began) / 1000))
  [ $took -lt 2000 ] || echo "${what[$pid]} to $node: krg_migrate took $took ms" >>refusals
done
for pid in ${!what[@]}; do wait $pid || echo "${what[$pid]} $pid: status $?"; done
echo moves $moves
"""


# Has a child of so many threads, which it stops and continues as it is told; says what it is told of it, and whether it is told what is not so.
PARENT = """
import os, signal, sys, threading, time
child = os.fork()
if child == 0:
    for _ in range(1, int(sys.argv[1])):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
while child == 0:
    signal.pause()
while len(os.listdir(f"/proc/{child}/task")) < int(sys.argv[1]):
    time.sleep(0.01)
print(child, flush=True)
NEWS = os.WUNTRACED | os.WCONTINUED
for line in sys.stdin:
    if line == "stop\\n":
        os.kill(child, signal.SIGSTOP)
    if line == "continue\\n":
        os.kill(child, signal.SIGCONT)
    if line != "more\\n":
        print(os.waitpid(child, NEWS)[1], flush=True)
        continue
    news = []
    for _ in range(10):
        time.sleep(0.01)
        news += [status for pid, status in [os.waitpid(child, NEWS | os.WNOHANG)] if pid != 0]
    print(*news, "no" if not news else "", "more", flush=True)
os.kill(child, signal.SIGKILL)
"""
# A step of $steps is what the parent is told to do, or who is moved where.
STEPS = """
coproc parent { exec /usr/bin/python3 parent.py $threads; }
read -r child <&${parent[0]}; parent_pid=$parent_PID
for step in $steps; do
  case $step in
    child=*) krg_migrate $child ${step#*=} || echo "$step refused"; step=more;;
    parent=*) krg_migrate $parent_pid ${step#*=} || echo "$step refused"; step=more;;
  esac
  echo $step >&${parent[1]}; read -r said <&${parent[0]}; echo $step $said
done
eval "exec ${parent[1]}>&-"; wait $parent_pid
"""


class Stalls:
    """While it is entered: how long the machine keeps one waiting who sleeps and then has a processor to himself no longer than to look at
    the clock. As long as that may take, so may a move, which is several such waits: nothing of ours is in them."""

    def __enter__(self):
        self.longest, self.ended = 0.0, threading.Event()
        self.watch = threading.Thread(target=self.look)
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.watch.join()

    def look(self):
        before = time.monotonic()
        while not self.ended.wait(0.01):
            now = time.monotonic()
            self.longest, before = max(self.longest, now - before - 0.01), now


class MovingFamilyTest(SessionCase):
    def test_every_feature_moves(self):
        self.check_all_of("features")

    def test_every_state_moves(self):
        """What the kernel keeps for threads and processes beside their memory and descriptors."""
        self.check_all_of("states", without="crowd")

    def test_hundreds_of_threads_move(self):
        self.check_all_of("states", only=["crowd"], least=1)

    def test_what_is_typed_finds_who_reads_it(self):
        """Wherever that has been moved meanwhile, some hundred times a second."""
        self.check_all_of("features", only=["ttys"])

    def check_all_of(self, name, only=(), without="", least=4):
        """A machine that is busy moves few of them in that time, and so is given more of it."""
        for seconds in (SECONDS, SECONDS * 5):
            moves, said = self.move_all_of(name, only, without, seconds)
            if moves >= least:
                break
        self.assertGreaterEqual(moves, least, said)
        print(said)

    def move_all_of(self, name, only, without, seconds):
        programs = [self.build / f"test-bin/tracees/{name}{how}" for how in ("", "_static")]
        names = ONLY or only or subprocess.run([programs[0]], capture_output=True, text=True, check=True).stdout.split()
        names = [one for one in names if one != without]
        (self.work / "refusals").write_text("", encoding="ascii")
        (self.work / "refusals").chmod(0o666)
        started = time.monotonic()
        with Stalls() as stalls:
            result = self.krgrun("bash", "-c", f"seed={SEED} names='{' '.join(names)}' ms={seconds * 1000} end={seconds + 2}\n"
                                 f"programs='{' '.join(map(str, programs))}'\n{STRESS}", caps="--caps=+CAN_MIGRATE", timeout=seconds * 4 + 90)
        refusals = (self.work / "refusals").read_text(encoding="ascii")
        said = f"seed {SEED}, {time.monotonic() - started:.1f} s, the machine's longest stall {stalls.longest:.1f} s\n{result.stdout}{result.stderr}{refusals}"
        for name in names:
            native = subprocess.run([programs[0], name, "100"], capture_output=True, text=True, timeout=30, check=True, cwd=self.dir).stdout
            for program in programs:
                self.assertEqual((self.work / f"{name}.{program.name}.out").read_text(encoding="ascii"), native, f"{name} {program.name}, {said}")
        self.assertEqual(result.returncode, 0, said)
        self.assertRegex(result.stdout, r"^moves \d+$", said)
        return int(result.stdout.split()[1]), said

    def check_news(self, *steps, threads=1):
        """Of a child's stops its parent hears once of each, and of nothing else, whoever moves while it is stopped."""
        (self.work / "parent.py").write_text(PARENT, encoding="ascii")
        out = self.shell(f"threads={threads}; steps='{' '.join(steps)}'\n{STEPS}", caps="--caps=+CAN_MIGRATE")
        told = {"stop": f"stop {signal.SIGSTOP << 8 | 0x7f}", "continue": f"continue {0xffff}"}
        self.assertEqual(out.split("\n"), [told.get(step, "more no more") for step in steps], f"{steps}\n{out}")

    def test_a_stopped_child_moves(self):
        moves = ["child=1", "child=2", "child=0", "child=3", "child=0"]
        self.check_news("stop", *moves, "continue", "child=1", "stop", "child=0", "continue", "stop", "child=2", "continue", "child=0")

    def test_a_stopped_child_of_several_threads_moves(self):
        if self.as_user:
            self.skipTest("an ordinary user's process of several threads does not go home")
        self.check_news("stop", "child=1", "child=0", "continue", "stop", "child=2", "child=3", "child=0", "continue", "child=1", "stop", "child=0",
                        "continue", threads=4)

    def test_a_stopped_child_and_its_parent_move(self):
        self.check_news("parent=1", "stop", "child=2", "child=0", "parent=2", "child=1", "continue", "stop", "parent=0", "child=0",
                        "parent=3", "continue", "child=1", "stop", "child=3", "parent=0", "continue", "child=0", "stop", "continue")

    def test_children_whose_output_goes_to_a_file(self):
        """They share its offset with each other wherever they are: no line is written over another."""
        out = self.shell("fork_tree 3 >tree 2>errors || cat errors; echo end >>tree; cat tree", caps=session_case.SPREAD)
        *lines, last = [line.split() for line in out.split("\n")]
        self.assertEqual((last, len(lines), len({line[3] for line in lines})), (["end"], 15, 15), out)
        self.assertGreater(len({line[1] for line in lines}), 1, out)


if __name__ == "__main__":
    session_case.main()
