"""Connected sockets handed to children on other nodes, and python3's multiprocessing by spawn, whose shared memory
keeps its processes together. SPDX-License-Identifier: GPL-2.0-or-later
"""
import textwrap

import session_case
from session_case import BUSY, SessionCase

SOCKETS = r"""
import hashlib, os, socket, subprocess, sys
CHILD = r'''
import hashlib, os, socket, sys
peer, hashed, count = socket.socket(fileno=int(sys.argv[1])), hashlib.sha256(), 0
while data := peer.recv(65536):
    hashed.update(data); count += len(data)
peer.sendall(f"{hashed.hexdigest()} {count} {os.uname().nodename}\n".encode())
for i in range(160):
    peer.sendall(bytes([i]) * 65536)
peer.shutdown(socket.SHUT_WR)
'''
def tcp():
    listener = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(listener.getsockname())
    return near, listener.accept()[0]
def converse(near, far):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(far.fileno())], pass_fds=[far.fileno()])
    far.close()
    data = os.urandom(10 << 20)
    near.sendall(data)
    near.shutdown(socket.SHUT_WR)
    stream = near.makefile("rb")
    digest, count, node = stream.readline().decode().split()
    answer = stream.read()
    print(digest == hashlib.sha256(data).hexdigest(), count, answer == b"".join(bytes([i]) * 65536 for i in range(160)),
          child.wait(), node != os.uname().nodename)
def serve():
    near, far = tcp()
    child = subprocess.Popen(["sh", "-c", "read x; echo got $x; cat"], stdin=far, stdout=far)
    far.close()
    near.sendall(b"hello\nmore\n")
    near.shutdown(socket.SHUT_WR)
    print(near.makefile().read().split(), child.wait())
for _ in range(2):
    converse(*tcp())
    converse(*socket.socketpair())
serve()
"""

SPAWN = r"""
import concurrent.futures, multiprocessing
from multiprocessing import shared_memory
def square(x): return x * x
def fill(queue, n):
    for i in range(n): queue.put(i)
def echo(end):
    while (x := end.recv()) is not None: end.send(len(x))
def count(lock, value):
    for _ in range(100):
        with lock: value.value += 1
def store(table, i): table[i] = i * i
def wait(one, other): one.wait(10); other.set()
def add(name):
    memory = shared_memory.SharedMemory(name=name); memory.buf[0] += 1; memory.close()
def main():
    spawn = multiprocessing.get_context("spawn")
    def run(target, *arguments, copies=1):
        made = [spawn.Process(target=target, args=arguments) for _ in range(copies)]
        for one in made: one.start()
        return made
    def join(made):
        for one in made: one.join()
        return [one.exitcode for one in made]
    near, far = spawn.Pipe()
    children = run(echo, far)
    far.close()
    for size in (10, 5000000):
        near.send(b"x" * size); print(near.recv())
    near.send(None); print(join(children))
    with spawn.Pool(4) as pool: print(sum(pool.map(square, range(50), chunksize=1)))
    queue = spawn.Queue(); children = run(fill, queue, 20, copies=3)
    print(sum(queue.get(timeout=30) for _ in range(60)), join(children))
    lock, value = spawn.Lock(), spawn.Value("i", 0); print(join(run(count, lock, value, copies=3)), value.value)
    with spawn.Manager() as manager:
        table = manager.dict(); print(join(run(store, table, 5)), dict(table))
    one, other = spawn.Event(), spawn.Event(); children = run(wait, one, other); one.set()
    print(other.wait(10), join(children))
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=spawn) as executor: print(sum(executor.map(square, range(20))))
    memory = shared_memory.SharedMemory(create=True, size=100); memory.buf[0] = 7
    print(join(run(add, memory.name)), memory.buf[0]); memory.close(); memory.unlink()
if __name__ == "__main__": main()
"""

# A server and its clients on all nodes meet at 127.0.0.1 and ::1; then the port is free again everywhere.
LOOPBACK = r"""
import os, socket, subprocess, sys, threading, time
def servers():
    yield socket.create_server(("127.0.0.1", 0))
    yield socket.create_server(("", 0))
    yield socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
CLIENT = r'''
import hashlib, os, socket, sys
there = socket.create_connection((sys.argv[1], int(sys.argv[2]))); peer = there.getpeername()[1]
data = os.urandom(1 << 20); there.sendall(data); there.shutdown(socket.SHUT_WR)
print(there.makefile().read() == hashlib.sha256(data).hexdigest(), peer == int(sys.argv[2]), os.uname().nodename)
'''
AGAIN = r'''
import os, socket, sys, time
from multiprocessing.connection import Listener
for host, port in ((sys.argv[1], int(sys.argv[2])), ("127.0.0.1", int(sys.argv[3]))):
    for _ in range(500):
        try: socket.create_connection((host, port)); time.sleep(0.01)
        except ConnectionRefusedError: break
    socket.create_server((host, port)).close()
with Listener(("127.0.0.1", 0)) as listener:
    print(listener.address[1], flush=True)
    with listener.accept() as peer: peer.send([os.uname().nodename, peer.recv()])
'''
def answer(peer):
    import hashlib
    state = hashlib.sha256()
    while data := peer.recv(65536): state.update(data)
    peer.sendall(state.hexdigest().encode()); peer.close()
def serve(server):
    while True:
        try: peer = server.accept()[0]
        except OSError: return
        threading.Thread(target=answer, args=(peer,), daemon=True).start()
def python(text, *arguments): return subprocess.Popen([sys.executable, "-c", text, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
nodes, ports = set(), []
for server in servers():
    port = server.getsockname()[1]; ports.append(port)
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    for host in ("127.0.0.1", "::1")[:1 + (server.family == socket.AF_INET6)]:
        clients = [python(CLIENT, host, port) for _ in range(6)]
        for client in clients:
            same, port_is_seen, node = client.communicate()[0].split(); nodes.add(node)
            if (same, port_is_seen, client.returncode) != ("True", "True", 0): print("no", host, port, node)
    server.shutdown(socket.SHUT_RDWR); server.close()
print(len(nodes) > 2)
from multiprocessing.connection import Client
seen = set()
for _ in range(3):
    each = python(AGAIN, "127.0.0.1", ports[0], ports[1])
    with Client(("127.0.0.1", int(each.stdout.readline()))) as client: client.send("hello"); node, said = client.recv(); seen.add(node)
    each.communicate()
print(said, len(seen) > 1 or seen != {os.uname().nodename})
"""

# A server that moves keeps its port on each node, and each connection that came there: one that waits in its queue goes along with it.
# It does line by line what its parent, which moves it, says.
MOVED = r"""
import subprocess
SERVER = r'''
import socket, time
server = socket.create_server(("127.0.0.1", 0), backlog=3); place = server.getsockname()
def connect():
    global clients
    clients = [socket.create_connection(place) for _ in range(3)]
    for number, client in enumerate(clients): client.sendall(b"%d" % number)
def accept():
    peer = server.accept()[0]; got = peer.recv(10); peer.sendall(got + b" served"); peer.close()
def answers():
    all = [client.makefile("b").read() for client in clients]
    for client in clients: client.close()
    return all == [b"%d served" % number for number in range(3)] and server.getsockname() == place
def is_free():
    while True:
        try: socket.create_server(place).close(); return True
        except OSError: time.sleep(0.05)
while True:
    try: print(eval(input()), flush=True)
    except EOFError: break
'''
server = subprocess.Popen(["/usr/bin/python3", "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def move(node): subprocess.run(["krg_migrate", str(server.pid), str(node)], check=True)
def do(call): server.stdin.write(f"{call}\n"); server.stdin.flush(); return server.stdout.readline().strip()
seen = []
for node in (2, 1, 2, 0, 2, 1, 0):
    move(node); do("connect()"); do("accept()")
    move(3 if node < 2 else 0); do("accept()"); do("accept()")
    seen.append(do("answers()"))
print(*seen, do("server.close()"))
for node in (1, 2, 3, 0): move(node); print(do("is_free()"))
server.stdin.close(); print(server.wait())
"""

# One socket that workers on several nodes read, and with "here" a thread of their parent: what one of them gets nobody else does. Who
# ends early leaves the rest to the others; two more have the socket and read nothing.
SHARED = r"""
import collections, os, socket, subprocess, sys, threading, time
WORKER = r'''
import os, select, socket, sys
shared, said, how = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
def work(most):
    waiting = select.poll(); waiting.register(shared, select.POLLIN)
    while most != 0 and (how == "polls" and not waiting.poll() or (data := shared.recv(4)) != b" end"):
        os.write(said, b"%s %s\n" % (data, os.uname().nodename.encode())); most -= 1
print(os.uname().nodename, flush=True)
work(20 if how == "ends" else -1)
'''
COUNT = 300
def share(kind, here):
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    told, said = os.pipe()
    packets = kind != socket.SOCK_STREAM
    def start(*command): return subprocess.Popen([*command], pass_fds=[far.fileno(), said], stdout=subprocess.PIPE)
    def work(how):
        worker = start(sys.executable, "-c", WORKER, str(far.fileno()), str(said), how)
        if worker.stdout.readline().decode().strip() != os.uname().nodename or packets: return worker
        worker.kill(); worker.wait()  # of a stream all who read it are to be elsewhere
        return work(how)
    idle = [start("sleep", "100") for _ in range(2)]
    workers = [work(how) for how in ("reads", "polls", "reads", "ends" if packets else "reads")]
    native = None
    if here:
        def read_here():
            while (data := far.recv(4)) != b" end": os.write(said, b"%s here\n" % data)
        native = threading.Thread(target=read_here); native.start()
    else: far.close()
    for number in range(COUNT):
        near.send(b"%4d" % number)
        if number % 8 == 0: time.sleep(0.02)
    while packets and workers[3].poll() is None: time.sleep(0.01); near.send(b"more")
    for _ in range(4 + here): near.send(b" end")
    ended = [worker.wait() for worker in workers]
    if native: native.join()
    for one in idle: one.kill(); one.wait()
    os.close(said)
    lines = [line.split() for line in open(told, "rb").read().decode().split("\n")[:-1]]
    often = collections.Counter(line[0] for line in lines if line[0] != "more")
    wrong = {number: often[str(number)] for number in range(COUNT) if often[str(number)] != 1}
    print("each once" if not wrong else wrong, len({line[1] for line in lines}) > 1 or not packets, ended)
for kind in (socket.SOCK_SEQPACKET, socket.SOCK_DGRAM): share(kind, False); share(kind, True)
share(socket.SOCK_STREAM, False)
"""

# Children on other nodes read a line each of what has come by a stream, and leave the rest to the next one, the last to their parent.
LINES = r"""
import os, socket, subprocess
def tcp():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]
for near, far in (tcp(), socket.socketpair()):
    near.sendall(b"".join(b"%d\n" % number for number in range(20)) + b"rest")
    said = [subprocess.run(["bash", "-c", "read line; echo $line $HOSTNAME"], stdin=far, stdout=subprocess.PIPE, text=True).stdout.split()
            for _ in range(20)]
    print([int(number) for number, _ in said] == [*range(20)], {node for _, node in said} != {os.uname().nodename}, far.recv(100).decode())
"""

# Descriptors passed by a unix socket to a child on another node, and back; each with the byte that it was sent with.
PASSED = r"""
import os, socket, subprocess, sys
CHILD = r'''
import os, socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
assert peer.recv(3) == b"abc"
data, fds, _, _ = socket.recv_fds(peer, 5, 10)
assert data == b"files" and len(fds) == 5, (data, fds)
reads, writes, appends, null, counter = fds
assert os.read(reads, 5) == b"line " and os.lseek(reads, 7, os.SEEK_SET) == 7 and os.read(reads, 8) == b"and more"
assert os.lseek(writes, 0, os.SEEK_CUR) == 3 and os.write(writes, b"XYZ") == 3 and os.pread(writes, 8, 0) == b"012XYZ6\n"
assert os.write(appends, b"from the child\n") == 15 and os.write(null, b"x") == 1 and os.read(null, 1) == b""
os.eventfd_write(counter, 40)
for fd in fds: os.close(fd)
peer.sendall(b"done")
data, fds, _, _ = socket.recv_fds(peer, 1, 10)
pipe, served = fds
served = socket.socket(fileno=served)
assert served.recv(100) == b"who is there?"
served.sendall(os.uname().nodename.encode() + b" " + os.read(pipe, 100)); served.close()
reads, writes = os.pipe()
own = open("own", "w+"); own.write("the child's"); own.flush(); own.seek(4)
socket.send_fds(peer, [b"back"], [reads, own.fileno()])
os.close(reads); own.close()
assert peer.recv(5) == b"taken"
os.write(writes, b"through a pipe of the child")
'''
near, far = socket.socketpair()
child = subprocess.Popen([sys.executable, "-c", CHILD, str(far.fileno())], pass_fds=[far.fileno()])
far.close()
open("reads", "w").write("line 1 and more\n"); open("writes", "w").write("0123456\n"); open("appends", "w").write("first\n")
reads, writes, appends = open("reads", "rb", 0), open("writes", "r+b", 0), open("appends", "ab", 0)
writes.seek(3); counter = os.eventfd(2)
near.sendall(b"abc")
with open("/dev/null", "r+b", 0) as null:
    socket.send_fds(near, [b"files"], [reads.fileno(), writes.fileno(), appends.fileno(), null.fileno(), counter])
assert near.recv(4) == b"done"
print(os.eventfd_read(counter), open("writes").read().strip(), open("appends").read().split())
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname()); served = listener.accept()[0]
listener.close(); client.sendall(b"who is there?")
there, here = os.pipe(); os.write(here, b"sent by a pipe"); os.close(here)
socket.send_fds(near, [b"2"], [there, served.fileno()]); served.close()
node, _, said = client.makefile().read().partition(" ")
print(node != os.uname().nodename, said)
data, fds, _, _ = socket.recv_fds(near, 4, 10)
near.sendall(b"taken")
print(data.decode(), os.read(fds[0], 100).decode(), os.pread(fds[1], 100, 0).decode(), os.lseek(fds[1], 0, os.SEEK_CUR), child.wait())
"""

# A process that accepts hands each connection to one of its workers on other nodes, which may hand it back, as prefork servers do.
HANDED = r"""
import multiprocessing, os, socket
from multiprocessing import reduction
def work(orders):
    while (number := orders.recv()) is not None:
        with socket.socket(fileno=reduction.recv_handle(orders)) as served:
            served.sendall(f"{number} {served.recv(100).decode()} {os.uname().nodename}".encode())
def main():
    context = multiprocessing.get_context("spawn")
    workers = []
    for _ in range(3):
        near, far = context.Pipe()
        workers.append((near, context.Process(target=work, args=(far,))))
        workers[-1][1].start()
        far.close()
    listener, nodes = socket.create_server(("127.0.0.1", 0)), set()
    for number in range(60):
        client = socket.create_connection(listener.getsockname()); client.sendall(f"asks {number}".encode())
        served = listener.accept()[0]
        near, worker = workers[number % 3]
        near.send(number); reduction.send_handle(near, served.fileno(), worker.pid); served.close()
        first, _, asked, node = client.makefile().read().split(); client.close()
        assert (int(first), int(asked)) == (number, number)
        nodes.add(node)
    for near, worker in workers: near.send(None); worker.join()
    print("all served", [worker.exitcode for _, worker in workers], len(nodes - {os.uname().nodename}) > 0)
if __name__ == "__main__": main()
"""


class SocketsTest(SessionCase):
    def run_script(self, name, text):
        (self.work / name).write_text(textwrap.dedent(text), encoding="ascii")
        result = self.krgrun("bash", "-c", f"{BUSY}; sleep 0.3; exec /usr/bin/python3 {name}", timeout=120, check=True)
        self.assertEqual(result.stderr, "")
        return result.stdout.strip().split("\n")

    def test_ten_megabytes_both_ways_and_half_closed(self):
        lines = self.run_script("sockets.py", SOCKETS)
        self.assertEqual(lines, ["True 10485760 True 0 True"] * 4 + ["['got', 'hello', 'more'] 0"])

    def test_one_loopback_network(self):
        self.assertEqual(self.run_script("loopback.py", LOOPBACK), ["True", "hello True"])

    def test_a_server_that_moves_keeps_its_port_and_queue(self):
        (self.work / "moved.py").write_text(MOVED, encoding="ascii")
        out = self.shell("/usr/bin/python3 moved.py", caps="--caps=+CAN_MIGRATE", timeout=120)
        self.assertEqual(out.split("\n"), ["True " * 7 + "None", *["True"] * 4, "0"])

    def test_multiprocessing_by_spawn(self):
        self.assertEqual(self.run_script("spawn.py", SPAWN),
                         ["10", "5000000", "[0]", "40425", "570 [0, 0, 0]", "[0, 0, 0] 300", "[0] {5: 25}", "True [0]",
                          "2470", "[0] 8"])

    def test_descriptors_that_are_passed(self):
        self.assertEqual(self.run_script("passed.py", PASSED),
                         ["42 012XYZ6 ['first', 'from', 'the', 'child']", "True sent by a pipe", "back through a pipe of the child the child's 4 0"])

    def test_a_socket_that_several_read(self):
        self.assertEqual(self.run_script("shared.py", SHARED), ["each once True [0, 0, 0, 0]"] * 5)

    def test_who_reads_a_part_leaves_the_rest(self):
        self.assertEqual(self.run_script("lines.py", LINES), ["True True rest"] * 2)

    def test_connections_that_are_handed_over(self):
        self.assertEqual(self.run_script("handed.py", HANDED), ["all served [0, 0, 0] True"])


if __name__ == "__main__":
    session_case.main()
