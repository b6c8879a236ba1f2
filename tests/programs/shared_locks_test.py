"""Locks by flock(2) and fcntl(2) of files that processes of different nodes share: /dev/shm is one for the whole session, and so
are its message queues.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from session_case import SessionCase

CAPS = "--caps=+CAN_MIGRATE"

COMMON = """
import ctypes, errno, fcntl, os, signal, struct, sys, time
OFD_GETLK, OFD_SETLK, OFD_SETLKW = 36, 37, 38
def wait_for(path):
    while not os.path.exists(path): time.sleep(0.005)
def note(path): open(path, "w").close()
def flock(kind, start, length, whence=os.SEEK_SET): return struct.pack("hhqqi4x", kind, whence, start, length, 0)
def locked():
    if os.environ["LOCKED"] == "file": return os.open("/dev/shm/locked", os.O_RDWR)
    return ctypes.CDLL(None).mq_open(b"/locked", os.O_RDWR | os.O_CREAT, 0o600, None)
wait_for("moved")
file, second = locked(), locked()
"""

# Counts by reading and writing: without a lock of its own, counts would be lost.
COUNTING = COMMON + """
kind, rounds = sys.argv[1], int(sys.argv[2])
for _ in range(rounds):
    if kind == "flock": fcntl.flock(file, fcntl.LOCK_EX)
    elif kind == "posix": fcntl.lockf(file, fcntl.LOCK_EX, 8)
    else: fcntl.fcntl(file, OFD_SETLKW, flock(fcntl.F_WRLCK, 0, 8))
    count = int.from_bytes(os.pread(file, 8, 0), "little") + 1
    os.pwrite(file, count.to_bytes(8, "little"), 0)
    if kind == "flock": fcntl.flock(file, fcntl.LOCK_UN)
    elif kind == "posix": fcntl.lockf(file, fcntl.LOCK_UN, 8)
    else: fcntl.fcntl(file, OFD_SETLK, flock(fcntl.F_UNLCK, 0, 8))
print(os.uname().nodename)
"""

# Has bytes 5 to 14 and the whole file, until it has been told to let go of them in some way.
HOLDER = COMMON + """
how = sys.argv[1]
if how == "description": fcntl.fcntl(file, OFD_SETLK, flock(fcntl.F_WRLCK, 5, 10))
else: fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
fcntl.flock(second, fcntl.LOCK_SH)
print(os.uname().nodename, flush=True)
with open("pid", "w") as written: written.write("-1" if how == "description" else str(os.getpid()))
note("held")
wait_for("waits")
time.sleep(0.05)
if how == "unlock": fcntl.lockf(file, fcntl.LOCK_UN); fcntl.flock(second, fcntl.LOCK_UN)
elif how in ("close", "description"): os.close(file); os.close(second)
elif how == "close of another": os.close(second)
elif how == "kill": os.kill(os.getpid(), signal.SIGKILL)
elif how == "exit": os._exit(0)
wait_for("end")
"""

OTHER = COMMON + """
def refused(call, *arguments):
    try: call(*arguments)
    except BlockingIOError: return True
    return False
def blocking(*where): return struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, flock(fcntl.F_WRLCK, *where)))
class Interrupted(Exception): pass
def interrupt(number, frame): raise Interrupted
now = fcntl.LOCK_EX | fcntl.LOCK_NB
wait_for("held")
tests = [refused(fcntl.lockf, file, now, 1, 14), refused(fcntl.lockf, file, now, 0, 0),
         refused(fcntl.lockf, file, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, 5),
         refused(fcntl.fcntl, file, OFD_SETLK, flock(fcntl.F_WRLCK, 14, 0)),
         not refused(fcntl.lockf, file, now, 5, 0), not refused(fcntl.lockf, file, now, 0, 15),
         blocking(0, 0) == blocking(20, -10, os.SEEK_CUR) == (fcntl.F_WRLCK, 0, 5, 10, int(open("pid").read())),
         blocking(0, 5)[0] == blocking(15, 0, os.SEEK_END if os.environ["LOCKED"] == "file" else os.SEEK_SET)[0] == fcntl.F_UNLCK,
         refused(fcntl.flock, second, now), not refused(fcntl.flock, second, fcntl.LOCK_SH | fcntl.LOCK_NB)]
fcntl.flock(second, fcntl.LOCK_UN)
fcntl.lockf(file, fcntl.LOCK_UN)
signal.signal(signal.SIGALRM, interrupt)
for wait in (lambda: fcntl.lockf(file, fcntl.LOCK_EX, 1, 14), lambda: fcntl.flock(second, fcntl.LOCK_EX)):
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try: wait(); tests.append(False)
    except Interrupted: tests.append(True)
note("waits")
fcntl.lockf(file, fcntl.LOCK_EX, 1, 14)
fcntl.flock(second, fcntl.LOCK_EX)
print(os.uname().nodename, *tests, flush=True)
note("end")
"""

# Each of three has a byte, then waits for the next one's.
CIRCLE = COMMON + """
mine = int(sys.argv[1])
fcntl.lockf(file, fcntl.LOCK_EX, 1, mine)
note(f"has{mine}")
for other in range(3): wait_for(f"has{other}")
try: fcntl.lockf(file, fcntl.LOCK_EX, 1, (mine + 1) % 3); print(True)
except OSError as error: print("deadlock" if error.errno == errno.EDEADLK else error)
"""

START = """
export LOCKED=${LOCKED:-file}
: > /dev/shm/locked; rm -f moved held waits end pid
start() {  # NODE PROGRAM ARGUMENT...
  /usr/bin/python3 "${@:2}" & pids+=($!)
  [ $1 = 0 ] || krg_migrate $! $1
}
"""


class SharedLocksTest(SessionCase):
    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")
        for name, text in (("counting.py", COUNTING), ("holder.py", HOLDER), ("other.py", OTHER), ("circle.py", CIRCLE)):
            (self.work / name).write_text(text, encoding="ascii")

    def test_one_at_a_time_over_nodes(self):
        rounds = 60
        for nodes in (2, 4):
            for kind in ("flock", "posix", "description"):
                with self.subTest(nodes=nodes, kind=kind):
                    starts = "; ".join(f"start {node} counting.py {kind} {rounds}" for node in range(nodes))
                    *hosts, count = self.shell(f"{START}{starts}; : > moved; wait ${{pids[*]}}\n"
                                               "od -An -tu8 /dev/shm/locked", nodes=nodes, caps=CAPS, timeout=120).split()
                    self.assertEqual(sorted(hosts), [f"n{node}" for node in range(nodes)])
                    self.assertEqual(int(count), nodes * rounds)

    def test_what_a_process_of_another_node_has(self):
        for holder, other in ((1, 0), (0, 1), (1, 2)):
            for how in ("unlock", "close", "close of another", "exit", "kill", "description"):
                with self.subTest(holder=holder, other=other, how=how):
                    out = self.shell(f"{START}start {holder} holder.py '{how}'; start {other} other.py; : > moved\n"
                                     "exec 2>/dev/null; wait ${pids[*]}; :", nodes=3, caps=CAPS, timeout=60)
                    self.assertEqual(out.split(), [f"n{holder}", f"n{other}", *["True"] * 12])

    def test_queues_are_locked_on_all_nodes(self):
        for holder, other, how in ((1, 0, "unlock"), (1, 2, "close"), (0, 1, "kill")):
            with self.subTest(holder=holder, other=other, how=how):
                out = self.shell(f"export LOCKED=queue\n{START}start {holder} holder.py {how}; start {other} other.py; : > moved\n"
                                 "exec 2>/dev/null; wait ${pids[*]}; :", nodes=3, caps=CAPS, timeout=60)
                self.assertEqual(out.split(), [f"n{holder}", f"n{other}", *["True"] * 12])

    def test_a_wait_for_itself_is_refused(self):
        for nodes, places in ((2, (0, 1, 0)), (3, (0, 1, 2))):
            with self.subTest(nodes=nodes):
                starts = "; ".join(f"start {place} circle.py {number}" for number, place in enumerate(places))
                out = self.shell(f"{START}rm -f has? ; {starts}; : > moved; wait ${{pids[*]}}; rm has?", nodes=nodes, caps=CAPS, timeout=60)
                self.assertEqual(sorted(out.split()), ["True"] * 2 + ["deadlock"])

    def test_locked_files_keep_their_processes(self):
        out = self.shell(f"{START}start 1 holder.py unlock; : > moved\n"
                         "for ((t = 0; t < 300; t++)); do [ -e held ] && break; sleep 0.1; done\n"
                         "krg_migrate ${pids[0]} 0 2>&1 | grep -o 'which is locked'; : > waits; : > end; wait ${pids[0]}; echo $?",
                         nodes=2, caps=CAPS)
        self.assertEqual(out.split("\n"), ["n1", "which is locked", "0"])


if __name__ == "__main__":
    session_case.main()
