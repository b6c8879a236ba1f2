"""Real programs that are saved at random instants, killed, and go on in a fresh cluster: their output is that of a run that
nothing interrupted.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import re
import shutil
import subprocess
import time
import zlib

import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"

# Prints a number for each step; each depends on all that came before.
PYTHON_WORK = """
import hashlib, time
state, seen = b"start", {}
for step in range(60):
    for i in range(20000):
        seen[i % 5000] = state = hashlib.md5(state + str(i).encode()).digest()
    print(step, state.hex(), len(seen), flush=True)
    time.sleep(0.06)
"""

THREADS_WORK = """
import hashlib, os, threading, time
results = {}
def work(number):
    state = str(number).encode()
    for i in range(500000):
        state = hashlib.md5(state).digest()
        while i == 400000 and not os.path.exists("end"): time.sleep(0.01)
    results[number] = state.hex()
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(sorted(results.items()))
"""

# Saves itself five times, each after other pages were written; prints what its memory is after each.
INCREMENTS_WORK = """
import mmap, os, random, subprocess, zlib
memory = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(os.urandom(1 << 20) * 32)
for step in range(5):
    if step == 4: memory[:16 << 20] = random.Random(1).randbytes(16 << 20)
    for page in range(step, 8192, 300): memory[page * 4096 + step] = 65 + step
    if step == 3: memory.madvise(mmap.MADV_DONTNEED, 20 << 20, 1 << 20)
    subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
    print(step, zlib.crc32(memory), flush=True)
"""

# Likewise with memory that it shares: with a child that stays, and with children that write and have ended when it is saved.
SHARED_INCREMENTS_WORK = """
import mmap, os, random, subprocess, zlib
memory = mmap.mmap(-1, 32 << 20)
memory.write(os.urandom(1 << 20) * 32)
told, tell = os.pipe()
answered, answer = os.pipe()
child = os.fork()
if child == 0:
    os.close(tell)
    while step := os.read(told, 1):
        memory[7000 * 4096 + step[0]] = 1
        os.write(answer, step)
    os._exit(0)
os.close(told)
for step in range(1, 6):
    if step == 5: memory[:16 << 20] = random.Random(1).randbytes(16 << 20)
    if os.fork() == 0:
        for page in range(step, 8192, 300): memory[page * 4096 + step] = 65 + step
        os._exit(0)
    os.wait()
    os.write(tell, bytes([step])); os.read(answered, 1)
    if step == 4: memory.madvise(mmap.MADV_REMOVE, 20 << 20, 1 << 20)
    subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
    print(step, zlib.crc32(memory), flush=True)
os.close(tell)
assert os.waitpid(child, 0) == (child, 0)
"""

# Overwrites a file in its middle, appends to another, and saves itself after each step with their contents.
FILES_WORK = """
import os, subprocess, time, zlib
table = open("table", "w+b", buffering=0); table.write(b"-" * 100000)
log, still = open("log.txt", "a"), open("still", "wb", buffering=0)
still.write(os.urandom(4 << 20)); os.utime("still", (1, 1))
time.sleep(0.1)  # what changed within a tick of the file clock might change unseen: it is saved once more
seen = open("seen"); seen.readline()
for step in range(4):
    table.seek(step * 4096 + 17); table.write(b"step %d" % step)
    print("line", step, file=log, flush=True)
    subprocess.run(["krg_checkpoint", "--files", "-o", "ckpt", str(os.getpid())], stdout=open("saves", "a"), check=True)
    table.seek(0)
    print(step, zlib.crc32(table.read()), open("log.txt").read().count("line"), zlib.crc32(open("still", "rb").read(99)), os.path.getsize("still"), seen.readline().strip(), flush=True)
"""

# Two processes that write to one mapped file of the disk, by mappings made with and without a descriptor that stays open.
MAPPED_WORK = """
import mmap, os, time, zlib
with open("table", "wb") as table: table.truncate(4 << 20)
table = os.open("table", os.O_RDWR)
memory = mmap.mmap(table, 4 << 20)
os.close(table)
told, tell = os.pipe()
answered, answer = os.pipe()
if os.fork() == 0:
    os.close(tell)
    while step := os.read(told, 1):
        memory[step[0] * 8192 : step[0] * 8192 + 4096] = bytes([step[0]]) * 4096
        os.write(answer, step)
    os._exit(0)
os.close(told)
for step in range(1, 41):
    memory[step * 8192 + 4096 : step * 8192 + 8192] = bytes([100 + step]) * 4096
    os.write(tell, bytes([step])); os.read(answered, 1)
    print(step, zlib.crc32(memory[: (step + 1) * 8192]), flush=True)
    if step == 5: open("ready", "w").close()
    while step == 30 and not os.path.exists("end"): time.sleep(0.01)
    time.sleep(0.02)
os.close(tell)
os.wait()
print(zlib.crc32(memory), zlib.crc32(open("table", "rb").read()))
"""

# Writes to a mapped file that is open, and saves itself with its contents; nothing tells that the file has changed.
MAPPED_FILES_WORK = """
import mmap, os, subprocess, time, zlib
file = open("table", "w+b"); file.truncate(1 << 20)
memory = mmap.mmap(file.fileno(), 1 << 20)
for step in range(4):
    for page in range(256): memory[page * 4096 + step] = page % 251 + step
    time.sleep(0.1)
    subprocess.run(["krg_checkpoint", "--files", "-o", "ckpt", str(os.getpid())], stdout=open("saves", "a"), check=True)
    print(step, zlib.crc32(memory), zlib.crc32(open("table", "rb").read()), flush=True)
"""

# Workers that add to numbers in shared memory: anonymous, of multiprocessing (unlinked, with locks), and named in /dev/shm.
SHARING_WORK = """
import hashlib, mmap, multiprocessing as mp, multiprocessing.shared_memory, os, time, zlib
memory = mmap.mmap(-1, 4 << 20)
numbers, lock, gate = mp.Array("q", 1000), mp.Lock(), mp.Barrier(3)
named = multiprocessing.shared_memory.SharedMemory(create=True, size=1 << 20)
def work(me):
    state = str(me).encode()
    for step in range(60):
        for i in range(3000): state = hashlib.md5(state).digest()
        at = (step * 3 + me) * 16384
        memory[at:at + 16] = state
        named.buf[step * 3 + me] = state[0]
        for i in range(me, 1000, 7):
            with lock: numbers[i] += state[1]
        gate.wait()
        time.sleep(0.07)
workers = [mp.Process(target=work, args=(n,)) for n in range(3)]
[w.start() for w in workers]
[w.join() for w in workers]
print([w.exitcode for w in workers], zlib.crc32(memory), sum(numbers), zlib.crc32(named.buf))
named.close(); named.unlink()
"""


# Is told of checkpoints that another process asks for; what it may not do itself is told to it.
CALLED_WORK = """
import ctypes, os, subprocess, time
krg = ctypes.CDLL("LIBKRG", use_errno=True)
told = []
calls = [ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _, name=name: told.append(name) or 0) for name in ("first", "second", "on", "again")]
for register, call in ((krg.cr_register_chkpt_callback, calls[0]), (krg.cr_register_chkpt_callback, calls[1]),
                       (krg.cr_register_continue_callback, calls[2]), (krg.cr_register_restart_callback, calls[3])):
    assert register(call, None) == 0, os.strerror(ctypes.get_errno())
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
while len(told) < 3: time.sleep(0.01)
subprocess.run(["krg_capset", "-e", "-CHECKPOINTABLE", str(os.getpid())], check=True)
print(told, krg.application_checkpoint(b"ckpt"), ctypes.get_errno(), told == told[:3])
"""


class CheckpointTest(CheckpointCase):
    def test_python(self):
        (self.work / "work.py").write_text(PYTHON_WORK, encoding="ascii")
        self.assertEqual(self.interrupted("/usr/bin/python3", "work.py"), self.native("/usr/bin/python3", "work.py"))

    def test_a_program_that_saves_itself(self):
        first = self.krgrun("--cluster=none", "saves_itself", "ckpt", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        told = "  is about to be saved\n"
        steps = first.stdout.split(told + "  goes on\n")
        self.assertEqual(len(steps), 6, first.stdout)
        again = self.restart("--restart-version=3")
        self.assertEqual((again.returncode, again.stderr), (0, ""))
        self.assertEqual(again.stdout, "  has been restarted\n" + (told + "  goes on\n").join(steps[3:]))

    def test_at_once_in_the_cluster_where_it_was_killed(self):
        """Its pids are taken until the cluster has ended what is left of it."""
        state = self.work / "state"
        state.mkdir(mode=0o700)
        os.chown(state, *self.owner())
        env = {"KRG_STATE_DIR": str(state)}
        self.run_program(["kradm", "cluster", "start", "-N", "2"], env=env, check=True)
        self.addCleanup(self.run_program, ["kradm", "cluster", "stop"], env=env)
        script = "for i in 1 2 3 4 5 6 7 8; do (until [ -e end ]; do sleep 0.05; done) & done; touch ready; wait; echo all >output"
        with open(self.work / "err", "ab") as err:
            os.fchown(err.fileno(), *self.owner())
            process = subprocess.Popen(self.command(["krgrun", f"--checkpoint-dir={self.work / 'ckpt'}", CAPS, "sh", "-c", script]), cwd=self.work,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err, env=self.environment(**env),
                                       start_new_session=True)
        self.addCleanup(self.end, process)
        self.wait_for_file("ready", process)
        self.save_and_kill(process)
        (self.work / "end").touch()
        again = self.run_program(["krgrun", f"--restart={self.work / 'ckpt'}"], env=env)
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "", ""))
        self.assertEqual((self.work / "output").read_text(), "all\n")

    def test_a_program_that_is_told(self):
        (self.work / "work.py").write_text(CALLED_WORK.replace("LIBKRG", str(self.build / "lib/libkrg.so.0")), encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=2)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "['second', 'first', 'on'] -1 1 True\n", ""))
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "['second', 'first', 'again'] -1 1 True\n", ""))

    def test_threads(self):
        (self.work / "work.py").write_text(THREADS_WORK, encoding="ascii")
        self.assertEqual(self.interrupted("/usr/bin/python3", "work.py", times=1), self.native("/usr/bin/python3", "work.py"))

    def test_a_pipeline(self):
        data = b"".join(b"%d some text to compress %d\n" % (i, i * i) for i in range(1200000))
        (self.work / "data").write_bytes(data)
        self.assertEqual(self.interrupted("bash", "-c", "cat data | gzip -9 | cat >packed; echo ${PIPESTATUS[@]}"), "0 0 0\n")
        self.assertEqual(hashlib.sha256(zlib.decompress((self.work / "packed").read_bytes(), 31)).digest(), hashlib.sha256(data).digest())

    def test_a_shell_with_traps_and_children(self):
        script = ("trap 'echo usr1' USR1; trap 'echo end' EXIT; touch ready; for i in {1..40}; do sleep 0.05; "
                  "[ $i = 36 ] && until [ -e end ]; do sleep 0.02; done; sh -c \"exit $((i % 5))\"; echo $i $?; "
                  "(exit 3) & wait $!; [ $((i % 10)) = 0 ] && kill -USR1 $$; echo a$i | tr a b; done; sleep 0.2 & wait $!; echo waited $?")
        (self.work / "script").write_text(script, encoding="ascii")
        self.compare("bash", "script")

    def test_the_script_that_saves_itself(self):
        script = "echo before; krg_checkpoint -o ckpt >log || exit 1; echo after; sleep 0.3; echo last; echo told >&2\n"
        (self.work / "script").write_text(script, encoding="ascii")
        first = self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "before\nafter\nlast\n", "told\n"))
        for _ in range(2):
            again = self.restart()
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "after\nlast\n", "told\n"))

    def test_what_kills_others_first_of_all(self):
        script = ('for i in {1..20}; do sleep 100 & all="$all $!"; done; krg_checkpoint -o ckpt >log; kill -9 $all\n'
                  "for job in $all; do wait $job 2>/dev/null; echo $?; done >ends; sort ends | uniq -c")
        (self.work / "script").write_text(script, encoding="ascii")
        for again in [self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1), self.restart()]:
            self.assertEqual((again.returncode, again.stdout.split()), (0, ["20", "137"]), again.stderr)

    def test_the_exit_status_and_signals_are_the_programs(self):
        script = "trap 'echo got it; exit 7' TERM; krg_checkpoint -o ckpt >log; echo ready; while :; do sleep 0.05; done"
        (self.work / "script").write_text(script, encoding="ascii")
        process = self.start("--caps=+CHECKPOINTABLE", "bash", "script")
        self.wait_for_version(1, process)
        self.end(process)
        (self.work / "out").unlink()
        again = self.start(f"--restart={self.work / 'ckpt'}")
        for _ in range(400):
            if "ready" in (self.work / "out").read_text():
                break
            time.sleep(0.05)
        again.terminate()
        self.assertEqual(again.wait(30), 7, self.errors())
        self.assertEqual((self.work / "out").read_text(), "ready\ngot it\n")

    def test_deleted_files_pids_groups_and_signals_that_wait(self):
        program = '''
import os, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
os.kill(os.getpid(), signal.SIGUSR2)
gone = open("gone", "w+"); gone.write("text without a name"); gone.flush(); os.unlink("gone")
r, w = os.pipe(); os.write(w, b"in flight"); os.close(w)
u, v = os.pipe()
child = os.fork()
if child == 0:
    os.setsid(); os.write(v, b"."); signal.pause()
os.read(u, 1)
before = (os.getpid(), child, os.getsid(child), os.getpgid(child), os.umask(0o27), os.getcwd())
ended = os.fork()
if ended == 0: os._exit(9)
os.waitid(os.P_PID, ended, os.WEXITED | os.WNOWAIT)
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
assert before == (os.getpid(), child, os.getsid(child), os.getpgid(child), before[4], os.getcwd()), before
assert os.umask(0) == 0o27
gone.seek(0)
print(gone.read(), os.read(r, 99), os.read(r, 99), os.waitpid(ended, 0)[1] >> 8, signal.sigpending())
os.kill(child, signal.SIGKILL); print(os.waitpid(child, 0)[1])
'''
        (self.work / "work.py").write_text(program, encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        wanted = "text without a name b'in flight' b'' 9 {<Signals.SIGUSR2: 12>}\n9\n"
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, wanted, ""))
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, wanted, ""))

    def test_sqlite_in_a_transaction(self):
        if not shutil.which("sqlite3"):
            self.skipTest("no sqlite3")
        steps = "\n".join(f"insert into t select {i}, hex(randomblob(20)) from t;" for i in range(13))
        (self.work / "work.sql").write_text(
            "pragma cache_size=-200000; create table t(a, b); begin; insert into t values (1, 'x');\n.system touch ready; sleep 1\n"
            f"{steps}\n.system sleep 1\nselect count(*) from t; commit; pragma integrity_check; select count(*), sum(length(b)) from t;\n",
            encoding="ascii")
        out = self.interrupted("sh", "-c", "exec sqlite3 base.db <work.sql", times=1, ready="ready")
        self.assertEqual(out.split(), ["8192", "ok", "8192|327641"])

    def test_at_intervals(self):
        (self.work / "work.py").write_text(PYTHON_WORK.replace("range(60)", "range(100)"), encoding="ascii")
        process = self.start("-N", "1", f"--checkpoint-dir={self.work / 'ckpt'}", "--checkpoint-every=1", "--keep=2",
                             "sh", "-c", "exec /usr/bin/python3 work.py >output")
        self.wait_for_version(3, process)
        self.end(process)
        self.assertIn(len(self.versions()), (2, 3))
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout + again.stderr), (0, ""))
        self.assertEqual((self.work / "output").read_text(), self.native("/usr/bin/python3", "work.py"))

    def test_increments_hold_what_was_written_since(self):
        self.check_increments(INCREMENTS_WORK)

    def test_increments_of_shared_memory(self):
        self.check_increments(SHARED_INCREMENTS_WORK)

    def check_increments(self, work):
        (self.work / "work.py").write_text(work, encoding="ascii")
        (self.work / "script").write_text("exec /usr/bin/python3 work.py", encoding="ascii")
        first = self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        wanted = first.stdout.split("\n")[:-1]
        own = [float(size) for size in re.findall(r", ([\d.]+) of", (self.work / "log").read_text())]
        self.assertEqual(len(own), 5)
        self.assertGreater(own[0], 32)
        self.assertLess(max(own[1:4]), 4, own)
        self.assertGreater(own[4], 16, own)
        for version in (1, 2, 3, 4, 5):
            again = self.restart(f"--restart-version={version}")
            self.assertEqual((again.returncode, again.stderr), (0, ""))
            self.assertEqual(again.stdout.split("\n")[:-1], wanted[version - 1:], version)
            # What a restart saved anew is not part of this.
            for newer in (v for v in self.versions() if v > 5):
                (self.work / f"ckpt/v{newer}.h5").unlink()
        self.run_program(["krg_checkpoint", "consolidate", "ckpt", "4"], check=True)
        self.assertNotIn("needs", self.run_program(["krg_checkpoint", "show", "ckpt", "4"], check=True).stdout)
        self.run_program(["krg_checkpoint", "prune", "ckpt", "2"], check=True)
        self.assertEqual(self.run_program(["krg_checkpoint", "verify", "ckpt"], check=True).stdout, "version 4: whole\nversion 5: whole\n")
        for version in (4, 5):
            self.assertEqual(self.restart(f"--restart-version={version}").stdout.split("\n")[:-1], wanted[version - 1:])

    def test_chains_stay_short(self):
        script = "for i in {1..22}; do krg_checkpoint -K 2 -o ckpt >>log || exit 1; x=$x$i; done; echo $x"
        (self.work / "script").write_text(script, encoding="ascii")
        first = self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        self.assertEqual(self.versions(), [21, 22])
        parts = [name for name in os.listdir(self.work / "ckpt") if ".n0." in name]
        self.assertLess(len(parts), 20, "older versions' pages have not been put together")
        for version in (21, 22):
            again = self.restart(f"--restart-version={version}")
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, first.stdout, ""))

    def test_processes_that_share_memory(self):
        (self.work / "work.py").write_text(SHARING_WORK, encoding="ascii")
        out = self.interrupted("/usr/bin/python3", "work.py", times=2)
        self.assertEqual(out, self.native("/usr/bin/python3", "work.py"))

    def test_a_named_memory_that_others_have_written_to_since(self):
        """Its pages are those of the checkpoint, those of zeros, too."""
        name = f"/dev/shm/krg-test-{os.getpid()}"
        self.addCleanup(lambda: os.path.exists(name) and os.unlink(name))
        (self.work / "work.py").write_text(
            f"import mmap, os, subprocess\nfile = open('{name}', 'w+b'); file.truncate(3 * 4096)\n"
            "memory = mmap.mmap(file.fileno(), 0); memory[4096] = 7\n"
            "subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())], stdout=open('log', 'a'), check=True)\n"
            "print(sum(memory[:]), len(memory), flush=True)\n", encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "7 12288\n", ""))
        with open(name, "wb") as file:
            file.write(b"x" * 5 * 4096)
        os.chown(name, *self.owner())
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "7 12288\n", ""))

    def test_locks_of_open_files(self):
        """Those by flock(2) and F_OFD_SETLK are the open file's: of the one that is open again."""
        (self.work / "work.py").write_text(
            "import fcntl, os, struct, subprocess\nopen('table', 'w').write('x' * 100)\n"
            "def lock(fd, kind, start, length, get=False):\n"
            "    words = struct.pack('hhqqi4x', kind, 0, start, length, 0)\n"
            "    return struct.unpack('hhqqi4x', fcntl.fcntl(fd, fcntl.F_OFD_GETLK if get else fcntl.F_OFD_SETLK, words))[:4]\n"
            "mine = os.open('table', os.O_RDWR); whole = open('whole', 'w'); fcntl.flock(whole, fcntl.LOCK_EX)\n"
            "lock(mine, fcntl.F_WRLCK, 10, 5); lock(mine, fcntl.F_RDLCK, 50, 0)\n"
            "subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())], stdout=open('log', 'a'), check=True)\n"
            "other = os.open('table', os.O_RDWR)\n"
            "print([lock(other, fcntl.F_WRLCK, start, 1, True)[:1] + lock(other, fcntl.F_WRLCK, start, 1, True)[2:] for start in (9, 12, 60)])\n"
            "lock(mine, fcntl.F_UNLCK, 10, 5); print(lock(other, fcntl.F_WRLCK, 12, 1, True)[0] == fcntl.F_UNLCK)\n"
            "try: fcntl.flock(open('whole'), fcntl.LOCK_SH | fcntl.LOCK_NB)\n"
            "except BlockingIOError: print('locked')\n", encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        wanted = "[(2, 9, 1), (1, 10, 5), (0, 50, 0)]\nTrue\nlocked\n"
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, wanted, ""))
        for nodes in ("1", "2"):
            again = self.restart("-N", nodes)
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, wanted, ""))

    def test_mapped_files_of_a_disk(self):
        self.compare("/usr/bin/python3", "-c", MAPPED_WORK, times=2, nodes=(1, 2, 1))

    def test_contents_of_mapped_files(self):
        (self.work / "work.py").write_text(MAPPED_FILES_WORK, encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        for version in (2, 1, 3, 4):
            (self.work / "table").unlink()
            again = self.restart("--files", f"--restart-version={version}")
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "".join(first.stdout.splitlines(True)[version - 1:]), ""), version)
            for newer in (v for v in self.versions() if v > 4):
                (self.work / f"ckpt/v{newer}.h5").unlink()
        os.truncate(self.work / "table", 4096)
        refused = self.restart("--restart-version=4")
        self.assertEqual(refused.returncode, 125)
        self.assertRegex(refused.stderr, "table is shorter than what the program had mapped")

    def test_memory_shared_with_others_is_refused(self):
        program = ("import mmap, os, subprocess, sys; m = mmap.mmap(-1, 4096)\n"
                   "if os.fork() == 0:\n    m[0] = 1\n    subprocess.run(['krg_capset', '-e', '+CHECKPOINTABLE', str(os.getpid())], check=True)\n"
                   "    sys.exit(subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())], check=False).returncode)\n"
                   "print(os.wait()[1] >> 8)\n")
        (self.work / "work.py").write_text(program, encoding="ascii")
        result = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps="", nodes=1)
        self.assertIn("outside of the family", result.stderr)
        self.assertEqual(result.stdout, "1\n")

    def test_refusals_name_the_reason_and_nothing_is_touched(self):
        result = self.krgrun("bash", "-c", "krg_checkpoint -o ckpt $$; krg_capset -e +CHECKPOINTABLE; krg_checkpoint -o ckpt 999999; "
                             "exec 7<>/dev/tcp/127.0.0.1/1 || true; python3 -c \"import socket,time; a=socket.socket(socket.AF_NETLINK, socket.SOCK_RAW); time.sleep(60)\" & "
                             "sleep 0.5; krg_checkpoint -o ckpt $$; kill $!; echo alive", caps="", nodes=1)
        self.assertIn("CHECKPOINTABLE is not effective", result.stderr)
        self.assertIn("999999", result.stderr)
        self.assertIn("a socket: neither unix, TCP nor UDP", result.stderr)
        self.assertIn("alive", result.stdout)
        self.assertEqual(self.versions(), [])

    def test_standard_streams_by_other_numbers(self):
        """What a shell does while it redirects: krgrun's pipes are those of who restarts it then; what was in one that has ended is kept."""
        (self.work / "script").write_text("exec 5>&1 6>&2 7<&0 >log 2>&1 </dev/null; krg_checkpoint -o ckpt $$ || exit 3\n"
                                          "echo told >&5; echo failed >&6; cat <&7 >&5", encoding="ascii")
        command = ("krgrun", "--cluster=none", "-N", "1", CAPS, "bash", "script")
        first = self.run_program(command, input="asked")
        log = (self.work / "log").read_text()
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "told\nasked", "failed\n"), log)
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "told\nasked", "failed\n"), log)

    def test_an_application_stands_until_it_is_told_to_go_on(self):
        """It is saved meanwhile, twice; SIGTERM comes when it goes on."""
        (self.work / "worker").write_text("krg_capset -e +CHECKPOINTABLE; trap 'echo term; exit 6' TERM; i=0; while :; do i=$((i + 1)); echo $i >count; done",
                                          encoding="ascii")
        script = ("krg_capset -e -CHECKPOINTABLE; bash worker & pid=$!\n"
                  "until [ -s count ]; do sleep 0.05; done; krg_checkpoint freeze $pid || exit 1; before=$(cat count)\n"
                  "krg_checkpoint -o ckpt $pid >log; krg_checkpoint -o ckpt $pid >>log; sleep 0.2; [ \"$before\" = \"$(cat count)\" ] && echo stands\n"
                  "krg_checkpoint freeze $pid 2>&1 | grep -o 'stands already'; krg_checkpoint unfreeze -k $pid; wait $pid; echo $?\n"
                  "krg_checkpoint unfreeze $$ 2>&1 | grep -o 'not effective'")
        (self.work / "script").write_text(script, encoding="ascii")
        result = self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1)
        self.assertEqual(result.stdout.split("\n")[:-1], ["stands", "stands already", "term", "6", "not effective"], result.stderr)
        self.assertEqual(self.versions(), [1, 2], result.stderr)

    def test_files_get_their_contents_back(self):
        (self.work / "seen").write_text("one\ntwo\nthree\nfour\nfive\n", encoding="ascii")
        (self.work / "work.py").write_text(FILES_WORK, encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""))
        wanted = first.stdout.split("\n")[:-1]
        own = [float(size) for size in re.findall(r", ([\d.]+) of", (self.work / "saves").read_text())]
        self.assertGreater(own[0], 4)
        self.assertLess(max(own[1:]), 4, "a file that did not change is saved again")
        for version, damage in ((2, self.overwrite_files), (4, self.remove_files), (1, lambda: None)):
            damage()
            again = self.restart("--files", f"--restart-version={version}")
            self.assertEqual((again.returncode, again.stderr), (0, ""))
            self.assertEqual(again.stdout.split("\n")[:-1], wanted[version - 1:], version)
            for newer in (v for v in self.versions() if v > 4):
                (self.work / f"ckpt/v{newer}.h5").unlink()
        self.run_program(["krg_checkpoint", "consolidate", "ckpt", "4"], check=True)
        self.run_program(["krg_checkpoint", "prune", "ckpt", "1"], check=True)
        self.remove_files()
        self.assertEqual(self.restart("--files", "--restart-version=4").stdout.split("\n")[:-1], wanted[3:])

    def overwrite_files(self):
        for name in ("table", "log.txt", "still"):
            (self.work / name).write_bytes(b"other contents" * 200000)

    def remove_files(self):
        for name in ("table", "log.txt", "still"):
            (self.work / name).unlink()

    def test_files_that_have_changed_are_told(self):
        (self.work / "data").write_text("one\ntwo\nthree\n", encoding="ascii")
        (self.work / "script").write_text("exec 4>>grown; echo text >&4; read first; krg_checkpoint -o ckpt >log; read second; echo $second", encoding="ascii")
        with open(self.work / "data", encoding="ascii") as data:
            first = self.krgrun("--cluster=none", "bash", "-c", "exec bash script <data", caps=CAPS, nodes=1, stdin=data)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "two\n", ""))
        self.assertEqual(self.restart().stderr, "")
        (self.work / "grown").write_text("", encoding="ascii")
        (self.work / "data").write_text("one\nTWO\nthree\n", encoding="ascii")
        again = self.restart()
        self.assertEqual(again.stdout, "TWO\n")
        for name in ("data", "grown"):
            self.assertIn(f"{name} has changed since the checkpoint", again.stderr)

    def test_damage_is_told_and_nothing_starts(self):
        (self.work / "script").write_text("krg_checkpoint -o ckpt >log; echo runs", encoding="ascii")
        self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1, check=True)
        part = self.work / "ckpt/v1.n0.h5"
        whole = part.read_bytes()
        for fault, wanted in ((whole[:-1], "cut off"), (whole[:-5000] + bytes([whole[-5000] ^ 1]) + whole[-4999:], "damaged"), (b"", "no checkpoint file"),
                              (whole.replace(b"format 1", b"format 7", 1), "newer version")):
            part.write_bytes(fault)
            again = self.restart()
            self.assertEqual((again.returncode, again.stdout), (125, ""), again.stderr)
            self.assertIn(wanted, again.stderr)
            self.assertEqual(self.run_program(["krg_checkpoint", "verify", "ckpt"]).returncode, 1)
        part.unlink()
        self.assertIn("v1.n0.h5", self.restart().stderr)
        part.write_bytes(whole)
        self.assertEqual(self.restart().stdout, "runs\n")
        self.assertIn("there is no version 9", self.restart("--restart-version=9").stderr)

    def test_the_folder_is_listed_verified_and_pruned(self):
        script = "for i in 1 2 3; do krg_checkpoint -d number$i -o ckpt >>log; done; krg_checkpoint -z -a -o all >>log"
        (self.work / "script").write_text(script, encoding="ascii")
        self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1, check=True)
        listed = self.run_program(["krg_checkpoint", "list", "ckpt"], check=True).stdout.split("\n")
        self.assertEqual([line.split()[0] for line in listed if line], ["1", "2", "3"])
        self.assertIn("number2", listed[1])
        self.assertIn("process 3", self.run_program(["krg_checkpoint", "show", "ckpt", "2"], check=True).stdout)
        self.assertEqual(self.run_program(["krg_checkpoint", "verify", "ckpt"], check=True).stdout.count("whole"), 3)
        self.run_program(["krg_checkpoint", "prune", "ckpt", "1"], check=True)
        self.assertEqual(self.versions(), [3])
        folder = next((self.work / "all").iterdir())
        self.assertEqual(self.run_program(["krg_checkpoint", "verify", folder], check=True).stdout, "version 1: whole\n")

    def test_others_read_the_files(self):
        if not shutil.which("h5dump"):
            self.skipTest("no h5dump")
        (self.work / "script").write_text("krg_checkpoint -o ckpt >log", encoding="ascii")
        self.krgrun("--cluster=none", "bash", "script", caps=CAPS, nodes=1, check=True)
        shown = subprocess.run(["h5dump", "-d", "/parts/n0/processes", "v1.h5"], cwd=self.work / "ckpt", capture_output=True, text=True,
                               timeout=30, check=True).stdout
        self.assertIn('"bash', shown)
        reads = ("import h5py; f = h5py.File('v1.h5'); p = f['parts/n0']; "
                 "assert p['pages'].shape[0] * 4096 == p.attrs['page_bytes'] == p['ranges']['bytes'].sum(); print(f.attrs['command'].decode())")
        h5py = subprocess.run(["/usr/bin/python3", "-c", reads], cwd=self.work / "ckpt", capture_output=True, text=True, timeout=30, check=False)
        if "No module named 'h5py'" in h5py.stderr:
            self.skipTest("no h5py")
        self.assertEqual((h5py.stdout, h5py.stderr), ("bash script\n", ""))


if __name__ == "__main__":
    session_case.main()
