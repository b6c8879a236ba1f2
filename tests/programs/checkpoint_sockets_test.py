"""Families whose members talk by sockets, saved with data in flight, killed, and restarted.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import socket
import threading
import time

import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"

# Numbers go round by a socket pair, packets and TCP; some are always in flight, both ways.
CIRCLE = """
import hashlib, os, socket, sys, time
MOVES = False
listener = socket.socket(); listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); listener.bind(("127.0.0.1", 0)); listener.listen(3)
named = socket.socket(socket.AF_UNIX); named.bind("meet"); named.listen(3)
a, b = socket.socketpair(); c, d = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
def work(name, source, target, connect):
    state = name.encode()
    mine = connect()
    listener.close(); named.close(); open("closed" + name, "w").close()
    source, target = source or mine, target or mine
    if mine.family == socket.AF_INET: mine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    rest = b""
    while True:
        got = source.recv(1000)
        if not got: break
        rest += got
        while b"\\n" in rest:
            line, rest = rest.split(b"\\n", 1)
            for i in range(200): state = hashlib.md5(state + line).digest()
            target.send(line + b" " + state.hex()[:8].encode() + b"\\n")
    target.shutdown(socket.SHUT_WR)
    while source.recv(1000): pass
def by_tcp():
    s = socket.socket(); s.connect(listener.getsockname()); return s
def by_name():
    s = socket.socket(socket.AF_UNIX); s.connect("meet"); return s
children = []
for name, source, target, connect, keep in (("x", b, None, by_tcp, (b,)), ("y", None, c, by_name, (c,))):
    pid = os.fork()
    if pid == 0:
        for other in (a, b, c, d): other.close() if other not in keep else None
        work(name, source, target, connect); os._exit(7)
    children.append(pid)
b.close(); c.close()
tcp, meet = listener.accept()[0], named.accept()[0]
if MOVES:
    import subprocess
    while not (os.path.exists("closedx") and os.path.exists("closedy")): time.sleep(0.01)
    for node, pid in enumerate(children): subprocess.run(["krg_migrate", str(pid), str(node + 1)], check=True)
relay = os.fork()
if relay == 0:
    a.close(); d.close()
    while True:
        got = tcp.recv(1000)
        if not got: break
        meet.sendall(got)
    meet.shutdown(socket.SHUT_WR); os._exit(8)
tcp.close(); meet.close()
name, peer = listener.getsockname(), a.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
open("ready", "w").close()
sent, rest, step = 0, b"", 0
while step < STEPS:
    while sent < step + 9: a.sendall(b"%d\\n" % sent); sent += 1
    line = d.recv(1000)
    print(line.decode().strip(), flush=True); step += 1
    time.sleep(0.02)
    while step == STEPS - 9 and not os.path.exists("end"): time.sleep(0.01)
a.shutdown(socket.SHUT_WR)
count = 0
while d.recv(1000): count += 1
assert name == listener.getsockname()
late = socket.create_connection(name); both = listener.accept()[0]; late.send(b"late"); print(both.recv(9))
d.close(); a.close()
print(count, [os.waitpid(pid, 0)[1] >> 8 for pid in children + [relay]])
"""

# Full of what nobody reads, in both directions, when it saves itself; what is written then is refused by each.
FULL = """
import os, socket, subprocess, zlib
listener = socket.socket(); listener.bind(("127.0.0.1", 0)); listener.listen(3)
x = socket.create_connection(listener.getsockname()); y = listener.accept()[0]
u, v = socket.socketpair(); s, t = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
ends = [(x, y), (y, x), (u, v), (v, u)]
sent = []
for number, (one, other) in enumerate(ends):
    one.setblocking(False); count = crc = 0
    data = os.urandom(65536)
    try:
        while count < 4 << 20:
            piece = data[count % 60000:][:3000]; n = one.send(piece); crc = zlib.crc32(piece[:n], crc); count += n
    except BlockingIOError: pass
    sent.append((count, crc))
for size in (0, 5, 3000): s.send(b"p" * size)
half, gone = socket.socketpair(); gone.send(b"last words"); gone.close()
quiet, shut = socket.socketpair(); shut.shutdown(socket.SHUT_WR)
names = [e.getsockname() for e in (x, y)]
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
for (one, other), (count, crc) in zip(ends, sent):
    got = 0; sum = 0
    other.setblocking(True)
    while got < count: piece = other.recv(100000); sum = zlib.crc32(piece, sum); got += len(piece)
    assert (got, sum) == (count, crc), (got, count)
    one.setblocking(True); one.send(b"more"); assert other.recv(99) == b"more"
assert names == [e.getsockname() for e in (x, y)] and x.getpeername() == y.getsockname()
print(all(count > 50000 for count, _ in sent), [len(t.recv(9999)) for _ in range(3)], half.recv(99), half.recv(99), quiet.recv(9), quiet.send(b"q"), shut.recv(9))
"""

OUTSIDE = """
import os, socket, subprocess
s = socket.create_connection(("127.0.0.1", PORT)); print(s.recv(5), flush=True)
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
try: s.send(b"x"); print(s.recv(99), s.recv(99))
except OSError as error: print(type(error).__name__)
"""

# Without another end, or one that has been closed with something unread: the error waits for who reads next.
APART = """
import os, socket, subprocess
stream, packets, named = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET), socket.socket(socket.AF_UNIX)
named.bind("named"); named.listen(3)
reset, gone = socket.socketpair(); reset.send(b"unread"); gone.send(b"last words"); gone.close()
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
def tell(receive):
    try: return receive()
    except OSError as error: return type(error).__name__
print(tell(packets.getpeername), reset.recv(99), tell(lambda: reset.recv(9)))
stream.connect("named"); stream.send(b"hello"); print(named.accept()[0].recv(9))
"""

# Pipes that krgrun's caller has the other ends of.
PIPES = """
import os, sys, time
taker, giver = int(sys.argv[1]), int(sys.argv[2])
os.write(giver, b"before")
open("ready", "w").close()
while not os.path.exists("end"):
    time.sleep(0.02)
print(os.read(taker, 100), os.read(taker, 100))
try:
    os.write(giver, b"after")
except BrokenPipeError:
    print("nobody reads")
"""


class CheckpointSocketsTest(CheckpointCase):
    def write(self, name, text):
        (self.work / name).write_text(text, encoding="ascii")

    def circle(self, **options):
        native = self.work / "native.py"
        native.write_text(CIRCLE.replace("STEPS", "90"), encoding="ascii")
        self.write("end", "")
        expected = self.native("/usr/bin/python3", "native.py")
        (self.work / "meet").unlink()
        for name in ("ready", "closedx", "closedy", "end"):
            (self.work / name).unlink()
        self.write("work.py", CIRCLE.replace("STEPS", "90").replace("MOVES = False", f"MOVES = {'caps' in options}"))
        self.assertEqual(self.interrupted("/usr/bin/python3", "work.py", ready="ready", **options), expected)

    def test_a_circle_of_connections(self):
        self.circle(times=2)

    def test_members_on_several_nodes(self):
        self.circle(times=3, nodes=(3, 2, 3, 1), caps=["--caps=+CAN_MIGRATE"])

    def test_full_in_both_directions(self):
        self.write("work.py", FULL)
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        wanted = "True [0, 5, 3000] b'last words' b'' b'' 1 b'q'\n"
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, wanted, ""))
        for _ in range(2):
            again = self.restart()
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, wanted, ""))

    def test_sockets_without_another_end(self):
        self.write("work.py", APART)
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "OSError b'last words' ConnectionResetError\nb'hello'\n", ""))
        (self.work / "named").unlink()
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "OSError b'last words' b''\nb'hello'\n", ""))

    def test_a_peer_outside(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve():
                server.settimeout(60)
                peer = server.accept()[0]
                peer.sendall(b"hello, and more")
                time.sleep(0.1)
                peer.recv(1)
                peer.close()
            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            self.write("work.py", OUTSIDE.replace("PORT", str(server.getsockname()[1])))
            first = self.krgrun("--cluster=none", "--network=host", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
            thread.join()
            self.assertEqual((first.returncode, first.stderr), (0, ""))
        self.assertIn("b', and more'", first.stdout)
        refused = self.restart()
        self.assertEqual((refused.returncode, refused.stdout), (125, ""))
        self.assertIn("had a connection to outside: TCP 127.0.0.1", refused.stderr)
        again = self.restart("--lost-peers=close")
        self.assertEqual((again.returncode, again.stdout), (0, "b', and more' b''\n"), again.stderr)
        self.assertIn("krgrun: process", again.stderr)

    def test_pipes_to_outside(self):
        taker, far_giver = os.pipe()
        far_taker, giver = os.pipe()
        ends = [os.fdopen(end, "wb" if end in (far_giver, giver) else "rb", buffering=0) for end in (taker, far_giver, far_taker, giver)]
        for end in ends:
            self.addCleanup(end.close)
        self.write("work.py", PIPES)
        process = self.start("-N", "1", f"--checkpoint-dir={self.work / 'ckpt'}", "/usr/bin/python3", "work.py", str(taker), str(giver),
                             pass_fds=(taker, giver))
        self.wait_for_file("ready", process)
        ends[1].write(b"in flight")
        self.save_and_kill(process)
        self.assertEqual(ends[2].read(100), b"before")
        (self.work / "end").touch()
        refused = self.restart()
        self.assertEqual((refused.returncode, refused.stdout), (125, ""))
        self.assertIn(f"had a pipe to outside: descriptor {taker}", refused.stderr)
        again = self.restart("--lost-peers=close")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertEqual((self.work / "out").read_text(encoding="ascii"), "b'in flight' b''\nnobody reads\n")
        self.assertIn(f"had a pipe to outside: descriptor {giver}", again.stderr)


if __name__ == "__main__":
    session_case.main()
