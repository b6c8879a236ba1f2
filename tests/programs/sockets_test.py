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


class SocketsTest(SessionCase):
    def run_script(self, name, text):
        (self.work / name).write_text(textwrap.dedent(text), encoding="ascii")
        result = self.krgrun("bash", "-c", f"{BUSY}; sleep 0.3; exec /usr/bin/python3 {name}", timeout=120, check=True)
        self.assertEqual(result.stderr, "")
        return result.stdout.strip().split("\n")

    def test_ten_megabytes_both_ways_and_half_closed(self):
        lines = self.run_script("sockets.py", SOCKETS)
        self.assertEqual(lines, ["True 10485760 True 0 True"] * 4 + ["['got', 'hello', 'more'] 0"])

    def test_multiprocessing_by_spawn(self):
        self.assertEqual(self.run_script("spawn.py", SPAWN),
                         ["10", "5000000", "[0]", "40425", "570 [0, 0, 0]", "[0, 0, 0] 300", "[0] {5: 25}", "True [0]",
                          "2470", "[0] 8"])


if __name__ == "__main__":
    session_case.main()
