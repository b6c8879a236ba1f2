"""Real programs that move to other nodes while they work: their output is what it is natively.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import ctypes
import hashlib
import shutil
import subprocess
import zlib

import session_case
from session_case import SessionCase

CAPS = "--caps=+CAN_MIGRATE"
TIMERS_HAVE_GIVEN_IDS = 77  # prctl(2) PR_TIMER_CREATE_RESTORE_IDS

# Prints a number for each step; each depends on all that came before.
PYTHON_WORK = """
import hashlib, sys
state, seen = b"start", {}
for step in range(60):
    for i in range(20000):
        seen[i % 5000] = state = hashlib.md5(state + str(i).encode()).digest()
    print(step, state.hex(), len(seen), flush=True)
"""

# Has memory of huge pages, in each of which three small ones stand alone, and prints a sum of all of it for each step.
HUGE_PAGES = """
import hashlib, mmap
page, block, count = 4096, 2 << 20, 12
memory = mmap.mmap(-1, count * block, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(memory), page): memory[at:at + page] = at.to_bytes(8, "little") * (page // 8)
for at in range(0, len(memory), block):
    memory.madvise(mmap.MADV_DONTNEED, at + 100 * page, 5 * page)
    memory.madvise(mmap.MADV_DONTNEED, at + 108 * page, 5 * page)
for step in range(60): print(step, hashlib.sha256(memory).hexdigest(), flush=True)
"""

PERL_WORK = """
$| = 1; my %h; my $s = 17;
for my $step (1 .. 60) { for my $i (1 .. 160000) { $s = ($s * 1103515245 + 12345) % 2147483648; $h{$i % 3000} .= chr(65 + $s % 26) if $i % 50 == 0; }
  my $sum = 0; $sum += length($_) for values %h; print "$step $s $sum\\n"; }
"""

# Moves $pid to each node in turn till it ends; how often it moved goes to $moves, what was refused to the file errors.
MOVE_AROUND = """
: >errors
moves=0
for ((i = 0; i < 200; i++)); do
  for node in $nodes; do
    sleep 0.1
    kill -0 $pid 2>/dev/null || break 2
    krg_migrate $pid $node 2>>errors && moves=$((moves + 1))
  done
done
"""


# What a process has by itself, by its parent and by its children; it waits between.
COMES_HOME = """
read first; ulimit -n 777; renice -n 5 $$ >/dev/null; umask 027; cd /tmp; trap 'touch "$OLDPWD/trapped"' USR1
(while [ ! -e "$OLDPWD/go" ]; do sleep 0.05; done; exit 3) & child=$!
touch "$OLDPWD/ready"
while [ ! -e "$OLDPWD/go" ]; do sleep 0.05; done
wait $child; child=$?; read second
echo "limit $(ulimit -n) nice $(nice) umask $(umask) in $PWD child $child $first $second"
exit 9
"""

# Has one timer, not the kernel's first; says the timer's number and, told to end, whether it has ticked since.
TIMER = """
import ctypes, os, signal, struct
libc, ticks, number = ctypes.CDLL(None, use_errno=True), [], ctypes.c_int(-1)
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
event = ctypes.create_string_buffer(struct.pack("QiiQ", 0, signal.SIGALRM, 0, 0), 64)
for _ in range(2):
    number.value >= 0 and libc.syscall(226, number)  # timer_delete
    assert libc.syscall(222, 1, event, ctypes.byref(number)) == 0  # timer_create
assert libc.syscall(223, number, 0, struct.pack("4q", 0, 20000000, 0, 20000000), None) == 0  # timer_settime
open("ready", "w").close()
while not os.path.exists("go"):
    signal.pause()
del ticks[:]
for _ in range(3):
    signal.pause()
print("timer", number.value, "ticks", len(ticks) > 0, "known", libc.syscall(225, number) >= 0, flush=True)  # timer_getoverrun
os._exit(0)  # while it has its handler
"""

# Answers each line of each connection, until it is told to end.
SERVER = """
import selectors, socket, sys
listener, waiting, ends = socket.create_server(("127.0.0.1", 0)), selectors.DefaultSelector(), False
waiting.register(listener, selectors.EVENT_READ)
open("port", "w").write(str(listener.getsockname()[1]))
while not ends:
    for key, _ in waiting.select(5):
        if key.fileobj is listener:
            waiting.register(listener.accept()[0], selectors.EVENT_READ)
        elif not (line := key.fileobj.recv(4096)):
            waiting.unregister(key.fileobj)
            key.fileobj.close()
        else:
            key.fileobj.sendall(line.upper())
            ends |= line == b"end"
"""

# Has a lock of a part of a file until it is told to go on; then it waits for the whole.
LOCK_HOLDER = """
import fcntl, os, time
file = open("locked", "w+")
fcntl.lockf(file, fcntl.LOCK_EX, 16, 4)
open("ready", "w").close()
while not os.path.exists("go"):
    if os.path.exists("end"): os._exit(7)
    time.sleep(0.02)
fcntl.lockf(file, fcntl.LOCK_UN, 16, 4)
os.remove("go")
fcntl.lockf(file, fcntl.LOCK_EX)
fcntl.lockf(file, fcntl.LOCK_UN)
open("free", "w").close()
while not os.path.exists("home"): time.sleep(0.02)
exit(5)
"""
LOCK_ASKER = """
import fcntl, os, struct, sys, time
file = open("locked", "r+")
asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, asked))
print((kind, start, length, pid == int(sys.argv[1])))
try: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 10)
except OSError as error: print(type(error).__name__)
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 4, 0)
print("other part", flush=True)
open("go", "w").close()
fcntl.lockf(file, fcntl.LOCK_EX)
while os.path.exists("go"): time.sleep(0.02)
time.sleep(0.2)
print("waited", flush=True)
"""

# Who has which lock of a file that is at the first node: by a process there, and by one whose parent has moved and that was
# born on the second.
LOCKS_HERE = """
import fcntl, os, struct, time
def wait_for(path):
    while not os.path.exists(path): time.sleep(0.005)
def note(path):
    with open(path + ".new", "w") as written: written.write(str(os.getpid()))
    os.rename(path + ".new", path)
def holder(start, command=fcntl.F_GETLK):
    asked = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, start, 4, 0)
    return struct.unpack("hhqqi4x", fcntl.fcntl(file, command, asked))[2:]
def expected(start, path): return start, 4, int(open(path).read())
file = open("locked", "r+")
"""
LOCKS_FIRST = LOCKS_HERE + """
fcntl.lockf(file, fcntl.LOCK_EX, 4, 0)
note("first")
wait_for("second")
F_OFD_GETLK = 36
print(os.uname().nodename, holder(10) == expected(10, "second"), holder(0)[2], holder(10, F_OFD_GETLK) == expected(10, "second"),
      holder(0, F_OFD_GETLK) == expected(0, "first"), flush=True)
note("asked"); wait_for("end")
"""
LOCKS_SECOND = LOCKS_HERE + """
fcntl.lockf(file, fcntl.LOCK_EX, 4, 20)  # so it stays where it is
note("ready"); wait_for("moved")
if os.fork() == 0:
    fcntl.lockf(file, fcntl.LOCK_EX, 4, 10)
    note("second"); wait_for("end"); os._exit(0)
wait_for("asked")
print(os.uname().nodename, holder(0) == expected(0, "first"), holder(10) == expected(10, "second"), flush=True)
note("end")
"""

# One connection stays, others come and go.
CLIENT = """
import socket, time
address = ("127.0.0.1", int(open("port").read()))
stays = socket.create_connection(address)
def ask(connection, text):
    connection.sendall(text.encode())
    answer = b""
    while len(answer) < len(text): answer += connection.recv(4096) or exit("closed")
    assert answer == text.upper().encode(), (text, answer)
for number in range(600):
    ask(stays, f"number {number} " + "x" * (number % 300))
    if number % 20 == 0:
        with socket.create_connection(address) as another: ask(another, f"new {number}")
    time.sleep(0.005)
ask(stays, "end")
print("all answered")
"""


# Binds itself to each processor of the cluster in turn, and is where that is, all of it.
BOUND = """
import os
total = os.cpu_count()
kept, nodes = list(range(100000)), []
for processor in [*range(total), 0]:
    os.sched_setaffinity(0, {processor})
    assert os.sched_getaffinity(0) == {processor}, (processor, os.sched_getaffinity(0))
    nodes.append(int(os.uname().nodename[1:]))
assert nodes == [processor * 4 // total for processor in range(total)] + [0] and sum(kept) == 4999950000, nodes
print("moved to all nodes")
"""


class MigrationTest(SessionCase):
    def moved(self, command, nodes="1 2 0 3", least=3, allowed=""):
        """The output of a command that moves around while it works."""
        # A shadow of an ordinary user's may not choose its threads' ids: it is found out after its exec, and is a shadow again.
        expected = "no such process\\|threads: Operation not permitted" if self.as_user else "no such process"
        expected += f"\\|{allowed}" if allowed else ""
        out = self.shell(f"touch errors; nodes='{nodes}'\n{command} & pid=$!\n{MOVE_AROUND}\nwait $pid; status=$?\n"
                         f"grep -vi '{expected}' errors\necho status $status moves $moves", caps=CAPS, timeout=120)
        *lines, last = out.split("\n")
        words = last.split()
        self.assertEqual(words[:2], ["status", "0"], out)
        self.assertGreaterEqual(int(words[3]), least, out)
        return "\n".join(lines)

    def native(self, arguments, **options):
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=True, cwd=self.work, **options).stdout.strip()

    def test_a_process_shows_where_it_is(self):
        out = self.shell("sleep 100 & pid=$!; krg_where $pid | awk '{print $2}'; krg_migrate $pid 2; krg_where $pid | awk '{print $2}'\n"
                         "krg_migrate $pid 1; krg_where $pid | awk '{print $2}'; ps -o pid=,comm= -p $pid | awk '{print $2}'\n"
                         "kill $pid; wait $pid; echo $?", caps=CAPS)
        self.assertEqual(out.split(), ["0", "2", "1", "sleep", "143"])

    def test_a_process_comes_home(self):
        (self.work / "work.sh").write_text(COMES_HOME, encoding="ascii")
        out = self.shell("rm -f ready; (echo data; echo second) >data; bash work.sh <data & pid=$!; until [ -e ready ]; do sleep 0.05; done; ps -o ppid=,pgid=,sid= -p $pid >before\n"
                         "for node in 2 0 1 3 0; do krg_migrate $pid $node || exit; krg_where $pid | awk '{print $2}'; done\n"
                         "ps -o ppid=,pgid=,sid= -p $pid | diff before - && echo same place\n"
                         "kill -USR1 $pid; until [ -e trapped ]; do sleep 0.05; done; kill -STOP $pid; krg_migrate $pid 1; krg_migrate $pid 0\n"
                         "ps -o stat= -p $pid | cut -c1; kill -CONT $pid; touch go; wait $pid; echo status $?", caps=CAPS)
        self.assertEqual(out.split("\n"), ["2", "0", "1", "3", "0", "same place", "T", "limit 777 nice 5 umask 0027 in /tmp child 3 data second",
                                           "status 9"])

    def test_timers_come_home(self):
        """Home has had a timer of that number already, and the kernel counts on (Linux 6.15 lets one choose)."""
        libc = ctypes.CDLL(None)
        if libc.prctl(TIMERS_HAVE_GIVEN_IDS, 2, 0, 0, 0) < 0:
            self.skipTest("this kernel counts timers up only")
        (self.work / "timer.py").write_text(TIMER, encoding="ascii")
        out = self.shell("rm -f ready go; python3 timer.py & pid=$!; until [ -e ready ]; do sleep 0.05; done\n"
                         "for node in 1 0 2 0; do krg_migrate $pid $node || exit; krg_where $pid | awk '{print $2}'; done; touch go; wait $pid; echo $?",
                         caps=CAPS)
        self.assertEqual(out.split("\n"), ["1", "0", "2", "0", "timer 1 ticks True known True", "0"])

    def test_a_home_that_cannot_have_it_keeps_its_shadow(self):
        """Bash has its script at 255: an ordinary limit cannot be raised again for that, at home."""
        (self.work / "work.sh").write_text("ulimit -n 99; trap 'echo usr1; exit 4' USR1; echo ready >ready; while :; do sleep 0.05; done",
                                           encoding="ascii")
        out = self.shell("rm -f ready; ulimit -n 99; prlimit --nofile=100 true 2>/dev/null && echo skip && exit\n"
                         "bash work.sh & pid=$!; until [ -e ready ]; do sleep 0.05; done; krg_migrate $pid 1\n"
                         # It may have a child at that moment, and stays then.
                         "until krg_migrate $pid 0 2>&1 | grep -o 'above its limit, at its home'; do sleep 0.02; done\n"
                         "krg_where $pid | awk '{print $2}'; until krg_migrate $pid 2 2>errors; do sleep 0.02; done; krg_where $pid | awk '{print $2}'\n"
                         "kill -USR1 $pid; wait $pid; echo $?", caps=CAPS)
        if out == "skip":
            self.skipTest("limits can be raised here")
        self.assertEqual(out.split("\n"), ["above its limit, at its home", "1", "2", "usr1", "4"])

    def test_refusals_name_the_reason(self):
        result = self.krgrun("bash", "-c", "sleep 100 & krg_migrate $! 2; krg_migrate $! 77; krg_migrate 999999 1; krg_migrate x 1; "
                             "krg_migrate 1; kill $!", caps="")
        lines = result.stderr.split("\n")
        self.assertIn("CAN_MIGRATE is not effective", lines[0])
        self.assertIn("there is no node 77", lines[1])
        self.assertIn("999999", lines[2])
        self.assertIn("'x' is no pid", lines[3])

    def test_a_program_moves_itself(self):
        program = ("import ctypes, os; krg = ctypes.CDLL('%s', use_errno=True); at = krg.get_node_id; print(at(), krg.get_nr_nodes(), "
                   "krg.migrate_self(2), at(), krg.migrate(os.getpid(), 3), at(), krg.migrate_self(99), ctypes.get_errno() == 19)")
        out = self.krgrun("/usr/bin/python3", "-c", program % (self.build / "lib/libkrg.so"), caps=CAPS, check=True).stdout
        self.assertEqual(out.split(), ["0", "4", "0", "2", "0", "3", "-1", "True"])

    def test_the_balancer_spreads_what_computes(self):
        work = "i=0; while [ $i -lt 1500000 ]; do i=$((i + 1)); done; echo $i"
        script = (f"for k in 1 2 3; do bash -c '{work}' & pids=\"$pids $!\"; done\n"
                  "for ((t = 0; t < 300; t++)); do krg_where $pids 2>/dev/null | awk '{print $2}' | sort -u >nodes; "
                  "[ $(wc -l <nodes) -gt 1 ] && echo spread && break; sleep 0.1; done; wait")
        result = self.run_program(["krgrun", "-N", "2", "-c", "1", "--balance", "bash", "-c", script], timeout=120)
        self.assertEqual(sorted(result.stdout.split()), ["1500000"] * 3 + ["spread"], result.stderr)

    def test_python(self):
        (self.work / "work.py").write_text(PYTHON_WORK, encoding="ascii")
        self.assertEqual(self.moved("/usr/bin/python3 work.py"), self.native(["/usr/bin/python3", "work.py"]))

    def test_pages_around_those_that_come_first(self):
        """In memory of huge pages, where the first touch of one would make 512 of them."""
        (self.work / "huge.py").write_text(HUGE_PAGES, encoding="ascii")
        self.assertEqual(self.moved("/usr/bin/python3 huge.py"), self.native(["/usr/bin/python3", "huge.py"]))

    def test_perl(self):
        (self.work / "work.pl").write_text(PERL_WORK, encoding="ascii")
        self.assertEqual(self.moved("/usr/bin/perl work.pl"), self.native(["/usr/bin/perl", "work.pl"]))

    def test_a_stage_of_a_pipeline(self):
        data = b"".join(b"%d some text to compress %d\n" % (i, i * i) for i in range(900000))
        (self.work / "data").write_bytes(data)
        out = self.shell("nodes='1 2 3'; mkfifo f; gzip -9 <f >packed & pid=$!; cat data >f &\n"
                         f"{MOVE_AROUND}\nwait $pid; echo $? $moves; grep -vi 'no such process' errors; true", caps=CAPS, timeout=120)
        status, moves = out.split()[:2]
        self.assertEqual(status, "0", out)
        self.assertGreaterEqual(int(moves), 2, out)
        self.assertEqual(hashlib.sha256(zlib.decompress((self.work / "packed").read_bytes(), 31)).digest(),
                         hashlib.sha256(data).digest())

    def test_a_stage_of_several_threads(self):
        if not shutil.which("xz"):
            self.skipTest("no xz")
        data = b"".join(b"%d some text to compress %d\n" % (i, i * i) for i in range(40000))
        (self.work / "data").write_bytes(data)
        packer = ["xz", "-T2", "-6", "--block-size=131072"]
        out = self.shell(f"nodes='1 2 3'; mkfifo g; (for i in 1 2 3 4 5 6 7 8; do head -c 100000; sleep 0.2; done; cat) <data | {' '.join(packer)} >g & sha256sum <g >sum & pid=$(pgrep -nx xz)\n"
                         "until [ \"$pid\" ]; do sleep 0.02; pid=$(pgrep -nx xz); done\n"
                         f"{MOVE_AROUND}\nwait; echo $moves; grep -vi 'no such process' errors; cat sum; rm g", caps=CAPS, timeout=120)
        moves, *refusals, found = out.split("\n")
        native = subprocess.run(packer, input=data, capture_output=True, check=True).stdout
        self.assertEqual((refusals, found.split()[0]), ([], hashlib.sha256(native).hexdigest()), out)
        self.assertGreaterEqual(int(moves), 2, out)

    def test_compiles_of_make_move(self):
        """make and what it starts are moved at random: the objects are those of a native build."""
        for number in range(6):
            functions = "".join(f"double f{i}(double *a, int n) {{ double s = {number}; for (int k = 0; k < n; ++k) {{ switch (k % 7) {{"
                                + "".join(f"case {c}: s = s * a[k] + {c}.{i}; a[k] -= s / (k + {c + 1}); break;" for c in range(7))
                                + "} } return s; }\n" for i in range(24))
            (self.work / f"part{number}.c").write_text(functions, encoding="ascii")
        (self.work / "Makefile").write_text("all: $(patsubst %.c,%.o,$(wildcard part*.c))\n%.o: %.c\n\tgcc -O2 -c $< -o $@\n", encoding="ascii")

        def objects():
            return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.work.glob("part*.o")}
        out = self.shell("rm -f *.o; make -s -j3 >said 2>&1 & make=$!; moves=0; : >refusals\n"
                         "while kill -0 $make 2>/dev/null; do\n"
                         "  pids=($(pgrep -x 'make|gcc|cc1|as')); [ ${#pids[@]} = 0 ] && continue\n"
                         "  krg_migrate ${pids[$((RANDOM % ${#pids[@]}))]} $((RANDOM % 4)) 2>>refusals && moves=$((moves + 1)); sleep 0.02\n"
                         "done\nwait $make; echo $? $moves; cat said", caps=CAPS, timeout=120)
        self.assertEqual(out.split()[:1], ["0"], out)
        self.assertGreaterEqual(int(out.split()[1]), 3, out + (self.work / "refusals").read_text())
        moved = objects()
        for path in self.work.glob("part*.o"):
            path.unlink()
        subprocess.run(["make", "-s", "-j2"], cwd=self.work, check=True, capture_output=True)
        self.assertEqual((moved, len(moved)), (objects(), 6))

    def test_a_shell_with_traps_and_children(self):
        script = ("trap 'echo usr1' USR1; trap 'echo end' EXIT; echo start; sleep 1 & s=$!; krg_migrate $$ 2; hostname_of=$(krg_where $$ | "
                  "awk '{print $2}'); echo on $hostname_of; kill -USR1 $$; wait $s; echo waited $?; sh -c 'exit 7'; echo child $?; "
                  "(exit 3) & wait $!; echo background $?; echo a | tr a b")
        (self.work / "script").write_text(script, encoding="ascii")
        out = self.shell("bash script; echo $?", caps=CAPS)
        self.assertEqual(out.split("\n"), ["start", "on 2", "usr1", "waited 0", "child 7", "background 3", "b", "end", "0"])

    def test_children_on_several_nodes(self):
        """Each stays where it was made; the parent hears of them all, goes back where it has none left, and home."""
        script = ("trap 'echo child >>ended' CHLD; krg_migrate $$ 1; (until [ -e go ]; do sleep 0.02; done; exit 5) & a=$!\n"
                  "krg_migrate $$ 2; (until [ -e go ]; do sleep 0.02; done; kill -9 $BASHPID) & b=$!; (exit 8) & c=$!\n"
                  "krg_migrate $$ 3; krg_where $$ $a $b | awk '{print $2}'; ps -o ppid= -p $a | grep -cx \" *$$\"\n"
                  "wait $c; echo $?; krg_migrate $$ 1 2>&1 | grep -o 'left children on that node'; krg_migrate $$ 0 2>&1 | grep -o 'children on other nodes'\n"
                  "touch go; wait $b; echo $?; wait $a; echo $?; sh -c 'exit 7'; echo $?\n"
                  "krg_migrate $$ 1 && krg_migrate $$ 2; touch done; until [ -e home ]; do sleep 0.1; done; krg_where $$ | awk '{print $2}'\n"
                  "(exit 4) & wait $!; echo $?")
        (self.work / "script").write_text(script, encoding="ascii")
        out = self.shell("rm -f go ended; bash script 2>noise & pid=$!; until [ -e done ]; do sleep 0.1; done; until krg_migrate $pid 0 2>/dev/null; do sleep 0.03; done; touch home\n"
                         "wait $pid; echo $?; grep krg_ noise; true", caps=CAPS)
        self.assertEqual(out.split("\n"), ["3", "1", "2", "1", "8", "left children on that node", "children on other nodes", "137", "5", "7",
                                                "0", "4", "0"])
        self.assertGreaterEqual((self.work / "ended").read_text(encoding="ascii").count("child"), 4)

    def test_handlers_are_told_of_children_elsewhere(self):
        """One of one thread and one of two; the kernel of another node has told of each end, stop and continuation."""
        program = self.build / "test-bin/programs/child_news"
        (self.work / "go").touch()
        native = self.native([program])
        for arguments in ("", "thread"):
            out = self.shell(f"rm -f go ready; {program} {arguments} & pid=$!; until [ -e ready ]; do sleep 0.02; done; krg_migrate $pid 1 && touch go; wait $pid; echo $?",
                             caps=CAPS)
            self.assertEqual(out, f"{native}\n0")
        (self.work / "go").unlink()

    def test_guardians_end_with_their_process(self):
        out = self.shell("rm -f ready; exec 2>noise; bash -c 'krg_migrate $$ 1; sleep 100 & krg_migrate $$ 2; echo $! >child; sleep 100 & krg_migrate $$ 3; touch ready; wait' & pid=$!\n"
                         "until [ -e ready ]; do sleep 0.02; done; kill -9 $pid; wait $pid 2>noise; echo $?; kill $(cat child) && echo alone\n"
                         "for t in 1 2 3 4 5 6 7 8 9; do ps -e -o pid= | grep -qx \" *$pid\" || break; sleep 0.1; done; echo gone $t", caps=CAPS)
        self.assertRegex(out, r"^137\nalone\ngone [1-8]$")

    def test_event_descriptors(self):
        program = self.build / "test-bin/tracees/event_files"
        self.assertEqual(self.moved(program), self.native([program]))

    def test_event_descriptors_that_others_have_stay(self):
        script = ("import os, select, time; poll = select.epoll(); child = os.fork()\nif child == 0: time.sleep(100)\n"
                  "open('ready', 'w').close(); time.sleep(100)")
        out = self.shell(f'rm -f ready; /usr/bin/python3 -c "{script}" & pid=$!; until [ -e ready ]; do sleep 0.05; done; krg_migrate $pid 1 2>&1\n'
                         "krg_where $pid | awk '{print $2}'; pkill -P $pid; kill $pid", caps=CAPS)
        self.assertIn("is an epoll instance, which other processes have, too", out.split("\n")[0])
        self.assertEqual(out.split("\n")[1], "0")

    def test_eventfds_that_others_have_are_one(self):
        """Parent and child add to and take from the same ones, wherever either has moved."""
        (self.work / "two.py").write_text(
            "import os, sys, time; there, back = os.eventfd(0), os.eventfd(0); child = os.fork()\n"
            "if child == 0:\n    while (value := os.eventfd_read(there)) != 7: os.eventfd_write(back, value + 1)\n    os._exit(4)\n"
            "open('child', 'w').write(str(child)); answers = set()\n"
            "while not os.path.exists('go'):\n    os.eventfd_write(there, 100); answers.add(os.eventfd_read(back)); time.sleep(0.002)\n"
            "os.eventfd_write(there, 7); print(answers, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n", encoding="ascii")
        out = self.shell("rm -f child go; /usr/bin/python3 two.py & pid=$!; until [ -s child ]; do sleep 0.05; done; child=$(cat child)\n"
                         "for step in \"$pid 1\" \"$child 2\" \"$pid 3\" \"$child 1\" \"$child 3\"; do sleep 0.1; krg_migrate $step || exit; done\n"
                         "krg_where $pid $child | awk '{print $2}'; sleep 0.1; touch go; wait $pid; echo $?", caps=CAPS)
        self.assertEqual(out.split("\n"), ["3", "3", "{101} 4", "0"])

    def test_a_server_whose_client_stays_connected(self):
        (self.work / "server.py").write_text(SERVER, encoding="ascii")
        (self.work / "client.py").write_text(CLIENT, encoding="ascii")
        around = MOVE_AROUND.replace("200", "12")  # each costs the client a while
        out = self.shell("nodes='1 2 0 3'; rm -f port; /usr/bin/python3 server.py & pid=$!; until [ -s port ]; do sleep 0.05; done\n"
                         f"/usr/bin/python3 client.py >said 2>&1 &\n{around}\nwait $pid; echo $? $moves; wait; cat said; grep -vi 'no such process' errors; true",
                         caps=CAPS, timeout=120)
        status, moves, *said = out.split()
        self.assertEqual((status, said), ("0", ["all", "answered"]), out)
        self.assertGreaterEqual(int(moves), 3, out)

    def test_redis_whose_client_stays_connected(self):
        """A server of several threads, whose epoll instance watches a pipe and its client's connection; it stays while it reads /proc/self/stat."""
        if not shutil.which("redis-server") or not shutil.which("redis-cli"):
            self.skipTest("no redis-server, no redis-cli")
        commands = "".join(f"echo incr n; echo rpush l{i % 7} {i}; echo set k{i} $(printf %0{i % 50 + 1}d {i}); echo strlen k{i}; sleep 0.01\n" for i in range(300))
        (self.work / "commands").write_text(f"{commands}echo lrange l3 0 -1; echo dbsize; echo shutdown nosave\n", encoding="ascii")
        serve = "redis-server --port 0 --unixsocket $PWD/redis.sock --unixsocketperm 700 --save '' --dir . --enable-debug-command no >/dev/null"
        around = MOVE_AROUND.replace("200", "4")  # each costs the client a while
        ask = "until [ -S redis.sock ]; do sleep 0.05; done; bash commands | redis-cli -s redis.sock"
        native = self.native(["bash", "-c", f"{serve} & {ask}; wait; rm -f redis.sock"])
        out = self.shell(f"nodes='1 2 3'; {serve} & pid=$!; ({ask}) >said 2>&1 &\nuntil [ -s said ]; do sleep 0.05; done\n"
                         f"{around}\nwait $pid; echo $? $moves; wait; cat said; grep -v 'no such process\\|/stat: ' errors; true", caps=CAPS, timeout=120)
        first, *said = out.split("\n")
        self.assertEqual((first.split()[0], "\n".join(said).strip()), ("0", native), out)
        self.assertGreaterEqual(int(first.split()[1]), 3, out)

    def test_waits_end_though_they_move(self):
        """Were each to begin anew after a move, they would not end before the moves do."""
        program = self.build / "test-bin/tracees/features"
        around = MOVE_AROUND.replace("sleep 0.1", "sleep 0.5").replace("200", "15")
        out = self.shell(f"nodes='1 2 0 3'\n{program} waits 4000 & pid=$!\n{around}\nwait $pid; echo $? $moves", caps=CAPS, timeout=120)
        *ended, status, moves = out.split()
        self.assertEqual((ended, status), (["all", "waits", "ended"], "0"), out)
        self.assertIn(int(moves), range(2, 55))

    def test_a_stopped_process_that_waits_for_a_child_elsewhere(self):
        (self.work / "script").write_text("(until [ -e go ]; do sleep 0.02; done; exit 6) & touch ready; wait $!; echo $?", encoding="ascii")
        out = self.shell("rm -f go ready; bash script >out & pid=$!; until [ -e ready ]; do sleep 0.02; done; krg_migrate $pid 1; kill -STOP $pid\n"
                         "until ps -o stat= -p $pid | grep -q T; do sleep 0.02; done; krg_migrate $pid 2; krg_where $pid | awk '{print $2}'\n"
                         "touch go; sleep 0.2; krg_migrate $pid 3; kill -CONT $pid; wait $pid; krg_where $pid 2>&1 | wc -l; cat out", caps=CAPS)
        self.assertEqual(out.split(), ["2", "1", "6"])

    def test_a_stopped_process_leaves_a_child(self):
        """What keeps the child is asked for it when the process goes on, and so does not stop itself."""
        (self.work / "script").write_text("touch ready; until [ -e moved ]; do sleep 0.02; done\n"
                                          "(until [ -e go ]; do sleep 0.02; done; exit 6) & touch forked; wait $!; echo $?", encoding="ascii")
        out = self.shell("rm -f ready moved forked go; bash script >out & pid=$!; until [ -e ready ]; do sleep 0.02; done; krg_migrate $pid 1; touch moved\n"
                         "until [ -e forked ]; do sleep 0.02; done; kill -STOP $pid; until ps -o stat= -p $pid | grep -q T; do sleep 0.02; done\n"
                         "krg_migrate $pid 2; krg_where $pid | awk '{print $2}'; touch go; kill -CONT $pid; wait $pid; cat out", caps=CAPS)
        self.assertEqual(out.split(), ["2", "6"])

    def test_record_locks_move(self):
        """What a process on the first node finds while another, which has moved, has a lock: who, how far, until when."""
        (self.work / "holder.py").write_text(LOCK_HOLDER, encoding="ascii")
        (self.work / "asker.py").write_text(LOCK_ASKER, encoding="ascii")
        out = self.shell("rm -f locked ready go free home; /usr/bin/python3 holder.py & pid=$!; until [ -e ready ]; do sleep 0.02; done\n"
                         "krg_migrate $pid 1; krg_migrate $pid 2; krg_where $pid | awk '{print $3}'; krg_migrate $pid 0 2>&1 | grep -o 'lock by fcntl'\n"
                         "/usr/bin/python3 asker.py $pid; until [ -e free ]; do sleep 0.02; done; krg_migrate $pid 0 && krg_where $pid | awk '{print $3}'; touch home; wait $pid; echo $?; rm -f locked ready go free home", caps=CAPS)
        # Going home is an ordinary user's, too: it has one thread.
        self.assertEqual(out.split("\n"), ["n2", "lock by fcntl", "(1, 4, 16, True)", "BlockingIOError", "other part", "waited", "n0", "5"])

    def test_a_locks_process_is_told_wherever_it_is(self):
        (self.work / "first.py").write_text(LOCKS_FIRST, encoding="ascii")
        (self.work / "second.py").write_text(LOCKS_SECOND, encoding="ascii")
        out = self.shell("rm -f first second ready moved asked end; : >locked; /usr/bin/python3 first.py & /usr/bin/python3 second.py & pid=$!\n"
                         "until [ -e ready -a -e first ]; do sleep 0.02; done; krg_migrate $pid 1; : >moved; wait; rm -f locked first second ready moved asked end", caps=CAPS)
        self.assertEqual(out.split("\n"), ["n0 True 0 True True", "n1 True True"])

    def test_a_lock_ends_with_its_process(self):
        (self.work / "holder.py").write_text(LOCK_HOLDER, encoding="ascii")
        out = self.shell("rm -f locked ready go; /usr/bin/python3 holder.py & pid=$!; until [ -e ready ]; do sleep 0.02; done\n"
                         "krg_migrate $pid 3; (sleep 0.3; touch end) & /usr/bin/python3 -c \"\n"
                         "import fcntl; file = open('locked', 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); print('had')\"; wait $pid; echo $?; rm end", caps=CAPS)
        self.assertEqual(out.split("\n"), ["had", "7"])

    def test_locks_of_files_in_shared_memory(self):
        out = self.shell("rm -f ready go; name=/dev/shm/$$; >$name; /usr/bin/python3 -c \"\n"
                         "import fcntl, os, time; file = open('$name', 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); open('ready', 'w').close()\n"
                         "while not os.path.exists('go'): time.sleep(0.02)\n\" & until [ -e ready ]; do sleep 0.02; done\n"
                         "/usr/bin/python3 -c \"\nimport fcntl; file = open('$name', 'r+')\ntry: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
                         "except OSError as error: print(type(error).__name__)\nopen('go', 'w').close()\nfcntl.lockf(file, fcntl.LOCK_EX)\nprint('had')\"; wait; rm $name ready go", caps=CAPS)
        self.assertEqual(out.split(), ["BlockingIOError", "had"])

    def test_a_mutex_of_a_process_that_is_killed_where_it_has_moved(self):
        """Who waits for it on another node is told that its owner died."""
        if not self.has_shared_memory():
            self.skipTest("/dev/shm is each node's own")
        states = self.build / "test-bin/tracees/states"
        out = self.shell(f"{states} hold mutex.$$ >held & held=$!; until grep -qs has held; do sleep 0.02; done; krg_migrate $held 2; krg_migrate $held 1\n"
                         f"{states} take mutex.$$ >taken & taken=$!; until grep -qs waits taken; do sleep 0.02; done; krg_migrate $taken 3\n"
                         "krg_where $held $taken | awk '{print $2}'; kill -9 $held; wait $held 2>noise; echo $?; wait $taken; cat taken; rm /dev/shm/mutex.$$", caps=CAPS)
        self.assertEqual(out.split("\n"), ["1", "3", "137", "waits", "locked: Owner died, mended: 0"])

    def test_processors_that_a_process_is_bound_to(self):
        """Those of the same places among its node's, by the cluster's numbers."""
        total = int(self.shell("/usr/bin/python3 -c 'import os; print(len(os.sched_getaffinity(0)))'", caps=CAPS))
        last = total // 4 - 1
        out = self.shell(f"sleep 100 & pid=$!; see() {{ taskset -cp $pid | sed 's/.*: //'; }}; see; taskset -cp {last} $pid >/dev/null\n"
                         "krg_migrate $pid 2; see; krg_migrate $pid 3; see; krg_migrate $pid 0; see; kill $pid", caps=CAPS).split("\n")
        everything = f"0-{total - 1}"
        bound = [everything if last == 0 else str(node * (last + 1) + last) for node in (2, 3, 0)]
        self.assertEqual(out, [everything, *bound])

    def test_who_is_bound_to_processors_of_another_node_goes_there(self):
        """By itself, by another process; not who may not move."""
        out = self.shell(
            "cat >bound.py <<'END'\n" + BOUND + "END\n"
            "/usr/bin/python3 bound.py\n"
            "last=$(($(nproc --all) - 1)); sleep 100 & pid=$!; see() { krg_where $pid | awk '{print $2}'; }\n"
            "taskset -cp $last $pid >/dev/null; see; taskset -cp 0 $pid >/dev/null; see; kill $pid\n"
            "krg_capset -e -CAN_MIGRATE -d -CAN_MIGRATE; sleep 100 & pid=$!; taskset -cp $last $pid 2>&1 | grep -o 'Invalid argument'; see; kill $pid", caps=CAPS)
        self.assertEqual(out.split("\n"), ["moved to all nodes", "3", "0", "Invalid argument", "0"])

    def test_programs_that_are_bound_start_bound(self):
        """On another node: to the processor of the same place among that node's."""
        total = int(self.shell("/usr/bin/python3 -c 'import os; print(len(os.sched_getaffinity(0)))'", caps=CAPS))
        each = total // 4
        if each == 1:
            self.skipTest("each node has one processor: all of its programs are bound to that")
        out = self.shell(f"{session_case.BUSY}; sleep 0.3; taskset -cp {each - 1} $$ >bound\n"
                         "for i in 1 2 3 4 5 6; do /usr/bin/python3 -c 'import os; print(os.uname().nodename[1:], *os.sched_getaffinity(0))'; done")
        found = [tuple(map(int, line.split())) for line in out.split("\n")]
        self.assertEqual([processors for _, *processors in found], [[node * each + each - 1] for node, *_ in found], out)
        self.assertGreater(max(node for node, _ in found), 0, out)

    def test_sqlite_in_a_transaction(self):
        """Moved while another process on the first node wants the database: both do what they were told."""
        if not shutil.which("sqlite3"):
            self.skipTest("no sqlite3")
        steps = "\n".join(f"insert into t select {i}, hex(randomblob(20)) from t;" for i in range(12))
        (self.work / "work.sql").write_text(
            f".timeout 60000\ncreate table t(a, b); begin immediate; insert into t values (1, 'x');\n{steps}\nselect count(*) from t;\n"
            ".shell touch begun; until [ -e moved ]; do sleep 0.02; done; if [ -s had ]; then echo too early; fi\ncommit; pragma integrity_check;\n",
            encoding="ascii")
        (self.work / "other.sql").write_text(
            ".timeout 60000\nbegin immediate; insert into t values (-1, 'y'); commit; select count(*) from t;\n", encoding="ascii")
        out = self.shell("rm -f base.db begun moved had; sqlite3 base.db <work.sql & pid=$!; until [ -e begun ]; do sleep 0.02; done\n"
                         "sqlite3 base.db <other.sql >had & other=$!; krg_migrate $pid 1; sleep 0.1; krg_migrate $pid 2; krg_where $pid | awk '{print $3}'\n"
                         "touch moved; wait $pid; echo $?; wait $other; sqlite3 base.db 'pragma integrity_check; select count(*), sum(length(b)) from t'", caps=CAPS, timeout=120)
        self.assertEqual(out.split("\n"), ["4096", "n2", "ok", "0", "ok", "4097|163802"])


if __name__ == "__main__":
    session_case.main()
