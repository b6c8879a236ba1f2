"""Programs that wait by epoll for eventfds, timers, signals, pipes and sockets, saved at random instants, killed, and gone on with in
a fresh cluster.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import shutil
import unittest

import session_case
from checkpoint_case import CheckpointCase

# A server, clients in another process, a helper program and timers, all under asyncio; what is printed depends on all that came before.
ASYNCIO = """
import asyncio, hashlib, os, sys
STEPS, LAST = 40, 35
async def serve(reader, writer):
    state = b"server"
    while line := await reader.readline():
        for _ in range(2000): state = hashlib.md5(state + line).digest()
        await asyncio.sleep(0.01)
        writer.write(state.hex().encode() + b"\\n"); await writer.drain()
    writer.close()
async def serving():
    ended = asyncio.Event(); left = 3
    async def one(reader, writer):
        nonlocal left
        await serve(reader, writer); left -= 1
        if left == 0: ended.set()
    server = await asyncio.start_server(one, "127.0.0.1", 0)
    os.write(w, b"%d\\n" % server.sockets[0].getsockname()[1])
    await ended.wait()
async def client(me, port, turn):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    state = b"client%d" % me
    for step in range(STEPS):
        writer.write(b"%s\\n" % state.hex().encode()); await writer.drain()
        state = hashlib.md5(state + await reader.readline()).digest()
        while step == LAST and not os.path.exists("end"): await asyncio.sleep(0.01)
    writer.close()
    return state.hex()
async def asking(port):
    helper = await asyncio.create_subprocess_exec(sys.executable, "-u", "-c", "for line in iter(input, ''): print(line[::-1])",
                                                  stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    async def ask():
        for step in range(STEPS):
            helper.stdin.write(b"question %d\\n" % step); await helper.stdin.drain()
            print((await helper.stdout.readline()).decode().strip(), flush=True)
            await asyncio.sleep(0.02)
            while step == LAST and not os.path.exists("end"): await asyncio.sleep(0.01)
        helper.stdin.write(b"\\n"); await helper.stdin.drain()
        return await helper.wait()
    print(await asyncio.gather(ask(), *(client(n, port, None) for n in range(3))))
r, w = os.pipe()
child = os.fork()
if child == 0: asyncio.run(serving()); os._exit(7)
port = int(os.read(r, 99))
open("ready", "w").close()
asyncio.run(asking(port))
print(os.waitpid(child, 0)[1] >> 8)
"""

# Programs that end after a restart or at once, each waited for by a pidfd in the loop's epoll instance.
PIDFDS = """
import asyncio, os, warnings
warnings.simplefilter("ignore")
async def main():
    asyncio.set_child_watcher(watcher := asyncio.PidfdChildWatcher())
    watcher.attach_loop(asyncio.get_running_loop())
    long = [await asyncio.create_subprocess_exec("sh", "-c", "while [ ! -e end ]; do sleep 0.05; done; exit %d" % n) for n in range(3)]
    waits = [asyncio.create_task(one.wait()) for one in long]
    await asyncio.sleep(0)
    open("ready", "w").close()
    for step in range(40):
        print(step, await (await asyncio.create_subprocess_exec("sh", "-c", "exit %d" % step)).wait(), flush=True)
        await asyncio.sleep(0.02)
        while step == 35 and not os.path.exists("end"): await asyncio.sleep(0.02)
    print(await asyncio.gather(*waits))
asyncio.run(main())
"""

# Asks for a checkpoint of itself.
REFUSED = """
import ctypes, os, subprocess, sys
def watch_removed():
    libc = ctypes.CDLL(None)
    file = os.open("gone", os.O_CREAT | os.O_WRONLY)
    instance = libc.inotify_init1(0)
    assert libc.inotify_add_watch(instance, b"gone", 2) == 1
    os.unlink("gone")
kept = {what}
sys.exit(subprocess.run([sys.argv[1], str(os.getpid()), "-o", "ckpt"]).returncode)
"""

# A redis-server, and a client that changes its database step by step.
REDIS = """
import os, socket, subprocess, sys, time, zlib
server = subprocess.Popen([sys.argv[1], "--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "no", "--daemonize", "no"],
                          stdout=open("redis.log", "w"), stderr=subprocess.STDOUT)
while True:
    try: link = socket.socket(socket.AF_UNIX); link.connect("redis.sock"); break
    except OSError: time.sleep(0.02)
file = link.makefile("rwb")
def ask(*words):
    file.write(b"*%d\\r\\n" % len(words) + b"".join(b"$%d\\r\\n%s\\r\\n" % (len(w), w) for w in words)); file.flush()
    return answer()
def answer():
    line = file.readline().strip()
    if line[:1] == b"*": return [answer() for _ in range(int(line[1:]))]
    if line[:1] == b"$": return file.read(int(line[1:]) + 2)[:-2] if line != b"$-1" else None
    return line
open("ready", "w").close()
ask(b"SET", b"brief", b"here", b"PX", b"300")
for step in range(40):
    for i in range(50):
        ask(b"HSET", b"table%d" % (i % 7), b"key%d" % (step * i), b"%d" % (step * step + i)); ask(b"RPUSH", b"list", b"item%d" % i); ask(b"INCRBY", b"sum", b"%d" % i)
    print(step, ask(b"GET", b"sum"), ask(b"LLEN", b"list"), zlib.crc32(b"".join(sorted(ask(b"HGETALL", b"table3")))), flush=True)
    time.sleep(0.03)
    while step == 35 and not os.path.exists("end"): time.sleep(0.01)
while ask(b"GET", b"brief") is not None: time.sleep(0.02)
print(ask(b"PING")); ask(b"SHUTDOWN", b"NOSAVE"); print(server.wait())
"""


class CheckpointEventsTest(CheckpointCase):
    def program(self):
        return str(self.build / "test-bin/programs/event_loop")

    def test_an_event_loop_and_workers_that_share_one(self):
        self.compare(self.program(), times=3)

    def test_an_event_loop_on_several_nodes(self):
        self.compare(self.program(), times=2, nodes=(2, 3))

    def python(self, text, *arguments, **options):
        (self.work / "work.py").write_text(text, encoding="ascii")
        self.compare("/usr/bin/python3", "work.py", *arguments, **options)

    def test_asyncio(self):
        self.python(ASYNCIO)
        shown = self.run_program(["krg_checkpoint", "show", "ckpt"], check=True).stdout
        self.assertIn("  event descriptor anon_inode:[eventpoll] at 0\n", shown)

    def test_asyncio_on_several_nodes(self):
        self.python(ASYNCIO, times=3, nodes=(2, 1, 3))

    def compare_watcher(self, **options):
        (self.work / "spool").mkdir()
        os.chown(self.work / "spool", *self.owner())
        self.compare("sh", "-c", 'exec "$0" 2>overflows', str(self.build / "test-bin/programs/watcher"), times=3, **options)

    def test_inotify_and_pidfds(self):
        self.compare_watcher()
        self.assertRegex((self.work / "overflows").read_text(), "^[1-9][0-9]* overflows$")

    def test_inotify_and_pidfds_on_several_nodes(self):
        self.compare_watcher(nodes=(2, 1, 3))

    def test_asyncio_waits_for_programs_by_pidfds(self):
        self.python(PIDFDS)

    def refused(self, program):
        """What is said when such a program asks to be saved."""
        (self.work / "work.py").write_text(program, encoding="ascii")
        done = self.run_program(["krgrun", "-N", "1", "--cluster=none", "--caps=+CHECKPOINTABLE", "/usr/bin/python3", "work.py",
                                 str(self.build / "bin/krg_checkpoint")])
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.versions(), [])
        return done.stderr

    def test_a_pidfd_of_a_process_outside_of_the_family_is_refused(self):
        said = self.refused(REFUSED.format(what="os.pidfd_open(os.getppid() if os.getppid() else 1)"))
        self.assertIn("a pidfd of process 1, which is none of the application's", said)

    def test_a_watch_without_a_path_is_refused(self):
        said = self.refused(REFUSED.format(what="watch_removed()"))
        self.assertRegex(said, r"an inotify instance: watch 1 is of a file \(inode [0-9]+\) that cannot be found by a path")

    def test_redis(self):
        redis = shutil.which("redis-server")
        if not redis:
            self.skipTest("no redis-server")
        self.python(REDIS, redis)


if __name__ == "__main__":
    session_case.main()
