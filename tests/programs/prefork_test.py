"""A server whose processes accept by one listening socket, each of them moved around while clients ask, or elsewhere from its fork or
exec on: no connection is lost.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import socket
import threading

import session_case
from launcher_case import wait_until
from session_case import BUSY, SessionCase

CAPS = "--caps=+CAN_MIGRATE"

# Its parent, which waits for the end, never accepts. Workers wait in accept itself, in poll, or in epoll_wait ("outside", too).
SERVER = """
import os, select, signal, socket, sys, time
how, address = sys.argv[1:3]
if "/" in address:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(128)
else: listener = socket.create_server((address, 0), backlog=128)
listener.setblocking(how == "accept")
def work():
    class Ended(Exception): pass
    def end(*_): raise Ended
    served = 0
    signal.signal(signal.SIGTERM, end)
    if how == "poll": waiting = select.poll(); waiting.register(listener, select.POLLIN)
    else: waiting = select.epoll(); waiting.register(listener, select.EPOLLIN)
    try:
        while True:
            if how != "accept": waiting.poll()
            try: peer = listener.accept()[0]
            except BlockingIOError: continue
            peer.settimeout(20)
            asked = peer.recv(100)
            time.sleep(0.01)
            peer.sendall(asked + f" {os.getpid()} {os.uname().nodename}".encode())
            peer.close()
            served += 1
    except Ended: pass
    open(f"served{os.getpid()}", "w").write(f"{served}\\n")
    os._exit(0)
workers = []
for _ in range(3):
    pid = os.fork()
    if pid == 0: work()
    workers.append(pid)
signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in workers])
open("new", "w").write(f"{os.getpid()} {' '.join(map(str, workers))} {0 if '/' in address else listener.getsockname()[1]}")
os.rename("new", "started")
for pid in workers: assert os.waitpid(pid, 0)[1] == 0
os._exit(3)
"""

# Threads that ask, each by ever new connections, until each of the processes named has answered from the node that is named, or
# until there is the file "stop". How many were answered. Without a network of their own all nodes have one name.
CLIENT = """
import os, socket, sys, threading, time
address, port, *wanted = sys.argv[1:]
def connect():
    if "/" not in address: return socket.create_connection((address, int(port)), timeout=20)
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(20)
    peer.connect(address)
    return peer
seen, count, end = set(), 0, time.monotonic() + 90
def done(): return wanted and seen.issuperset(wanted) or not wanted and os.path.exists("stop")
def ask(thread):
    global count
    number = 0
    while not done():
        assert time.monotonic() < end, f"{wanted} are not all among {seen}"
        with connect() as peer:
            peer.sendall(f"{thread}.{number}".encode())
            answer = b""
            while more := peer.recv(100): answer += more
        told, pid, host = answer.decode().split()
        assert told == f"{thread}.{number}", answer
        seen.update((pid, f"{pid}.{host}"))
        number += 1
        count += 1
    finished.append(thread)
finished = []
threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("answered" if len(finished) == 6 else "failed", count)
"""

# Moves processes of the server one after the other; each place is to answer.
SCRIPT = """
/usr/bin/python3 server.py $HOW $ADDRESS & server=$!
until [ -e started ]; do sleep 0.05; done
read parent one two three port <started
/usr/bin/python3 client.py $ADDRESS $port >all & clients=$!
ask() { [ $HOW != outside ] || set -- ${@%.*}; /usr/bin/python3 client.py $ADDRESS $port "$@" >>asked || echo "not by $*"; }
move() { krg_migrate $1 $2 || echo "$1 does not go to $2"; }
ask $one.n0 $two.n0 $three.n0
move $one 1; ask $one.n1 $two.n0
move $two 2; move $three 1; ask $one.n1 $two.n2 $three.n1
move $parent 2; move $one 2; ask $one.n2 $two.n2 $three.n1
move $three 0; ask $one.n2 $two.n2 $three.n0
move $two 1; move $two 0; ask $one.n2 $two.n0
move $one 0; ask $one.n0 $two.n0 $three.n0
touch stop; wait $clients; kill -TERM $server; wait $server; echo status $?
cat all asked served* | tr '\\n' ' '
"""

# Each worker is where it was placed from its fork on, or from its exec; all are to answer from there.
FORKED = f"""
{BUSY}
{BUSY}
{BUSY}
sleep 0.3
$SERVER $HOW $ADDRESS & server=$!
""" + """
krg_capset -e -DISTANT_FORK
until [ -e started ]; do sleep 0.05; done
read parent one two three port <started
ask() { /usr/bin/python3 client.py $ADDRESS $port "$@" || echo "not all of $*"; }
ask $one $two $three
place() { read -r _ _ place _ < <(krg_where $1); }
places=; for pid in $one $two $three; do place $pid; places+=" $pid.$place"; done
ask $places; place $parent; at=$place
kill -TERM $server; wait $server; echo status $?
cat served* | tr '\\n' ' '; echo; echo $places; echo $at
"""

# A web server as Python's library has it, with workers that its parent has forked.
HTTP = """
import http.server, os, signal, threading, urllib.request
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(f"{os.getpid()} {os.uname().nodename}".encode())
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
def fork():
    if pid := os.fork(): return pid
    server.serve_forever()
workers = [fork() for _ in range(6)]
answers, many = [], threading.Event()
def ask():
    while not many.is_set():
        answers.append(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/", timeout=60).read().decode().split())
        if len(answers) >= 300 and len({node for _, node in answers}) > 1: many.set()
threads = [threading.Thread(target=ask) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(all(int(pid) in workers for pid, _ in answers))
for pid in workers: os.kill(pid, signal.SIGKILL)
print([os.waitpid(pid, 0)[1] for pid in workers])
"""

# Workers at a unix socket write who has asked them into the file that he has passed, until one of another node has.
PASSING = """
import os, signal, socket, struct, subprocess, sys
CLIENT = '''
import os, socket, sys
nodes = set()
for number in range(300):
    with socket.socket(socket.AF_UNIX) as peer, os.fdopen(os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600), "r+") as file:
        peer.connect(sys.argv[1])
        socket.send_fds(peer, [b"%d" % number], [file.fileno()])
        assert peer.recv(10) == b"written"
        file.seek(0)
        said, uid, gid, node = file.read().split()
        assert (int(said), int(uid), int(gid)) == (number, os.getuid(), os.getgid()), (said, uid, gid)
        nodes.add(node)
    if nodes - {os.uname().nodename}: break
print("asked as", os.getuid() == int(sys.argv[2]), len(nodes - {os.uname().nodename}))
'''
listener = socket.socket(socket.AF_UNIX)
listener.bind("asked"); os.chmod("asked", 0o777); listener.listen(16)
def work():
    while True:
        peer = listener.accept()[0]
        said, fds, _, _ = socket.recv_fds(peer, 10, 2)
        _, uid, gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        os.write(fds[0], f"{said.decode()} {uid} {gid} {os.uname().nodename}".encode()); os.close(fds[0])
        peer.sendall(b"written"); peer.close()
workers = []
for _ in range(4):
    pid = os.fork()
    if pid == 0: work()
    workers.append(pid)
# Root's sessions have all users, an ordinary user's has one.
for user in {os.getuid(), 12345 if "4294967295" in open("/proc/self/uid_map").read() else os.getuid()}:
    who = {} if user == os.getuid() else {"user": user, "group": user}
    subprocess.run([sys.executable, "-c", CLIENT, os.path.abspath("asked"), str(user)], cwd="/tmp", check=True, **who)
for pid in workers: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
"""


class PreforkTest(SessionCase):
    def setUp(self):
        for left in self.work.iterdir():
            left.unlink()
        (self.work / "server.py").write_text(SERVER, encoding="ascii")
        (self.work / "client.py").write_text(CLIENT, encoding="ascii")
        (self.work / "web.py").write_text(HTTP, encoding="ascii")

    def check_served(self, out, more=0):
        """`more`: connections of others."""
        lines = out.split("\n")
        self.assertEqual(lines[:-1], ["status 3"], out)
        words = lines[-1].split()
        counts = [int(words[i + 1]) for i, word in enumerate(words[:16]) if word == "answered"]
        self.assertEqual(len(counts), 8, out)
        self.assertEqual(sum(counts) + more, sum(map(int, words[16:])), out)

    def serve(self, how, **options):
        return self.shell(SCRIPT, caps=CAPS, nodes=3, timeout=200, env={"HOW": how, "ADDRESS": "127.0.0.1"}, **options)

    def ask_from_outside(self, counts):
        """Asks by ever new connections until there is the file "stop"."""
        started, stop = self.work / "started", self.work / "stop"
        wait_until(started.exists)
        port = int(started.read_text(encoding="ascii").split()[-1])
        count = 0
        while not stop.exists():
            with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
                peer.sendall(b"outside")
                answer = b""
                while more := peer.recv(100):
                    answer += more
            if not answer.startswith(b"outside "):
                break
            count += 1
        else:
            counts.append(count)

    def test_workers_that_accept(self):
        self.check_served(self.serve("accept"))

    def test_clients_outside_of_the_session(self):
        counts = []
        clients = [threading.Thread(target=self.ask_from_outside, args=[counts]) for _ in range(2)]
        for client in clients:
            client.start()
        result = self.krgrun("--network=host", "bash", "-c", SCRIPT, caps=CAPS, nodes=3, timeout=200, env={"HOW": "outside", "ADDRESS": "127.0.0.1"})
        (self.work / "stop").touch()
        for client in clients:
            client.join()
        self.assertEqual(len(counts), 2, "a client outside had no answer")
        self.check_served(result.stdout.strip(), sum(counts))

    def test_workers_that_poll(self):
        self.check_served(self.serve("poll"))

    def test_workers_that_wait_by_epoll(self):
        self.check_served(self.serve("epoll"))

    def fork_workers(self, how, server="/usr/bin/python3 server.py", address="127.0.0.1"):
        """The nodes of workers that are elsewhere than their parent."""
        out = self.shell(FORKED, caps=session_case.SPREAD, nodes=3, timeout=120, env={"HOW": how, "ADDRESS": address, "SERVER": server})
        first, then, status, served, places, server_at = [line.split() for line in out.split("\n")]
        self.assertEqual((first[0], then[0], status), ("answered", "answered", ["status", "3"]), out)
        self.assertEqual(sum(map(int, served)), int(first[1]) + int(then[1]), out)
        return {place.split(".")[1] for place in places} - set(server_at)

    def test_forked_workers_that_accept(self):
        self.assertTrue(self.fork_workers("accept"))

    def test_forked_workers_that_poll(self):
        self.assertTrue(self.fork_workers("poll"))

    def test_forked_workers_at_a_unix_socket(self):
        self.assertTrue(self.fork_workers("accept", address=str(self.work / "socket")))

    def test_forked_workers_that_are_passed_descriptors(self):
        (self.work / "passing.py").write_text(PASSING, encoding="ascii")
        out = self.shell("\n".join([BUSY] * 3) + "\nsleep 0.3; exec /usr/bin/python3 passing.py", caps=session_case.SPREAD, nodes=3, timeout=120)
        self.assertEqual(set(out.split("\n")), {"asked as True 1"})

    def test_forked_workers_in_c(self):
        server = str(self.build / "test-bin/tracees/prefork")
        for how in ("fork", "exec"):
            with self.subTest(how=how):
                self.assertTrue(self.fork_workers(how, server))
            for left in self.work.glob("s*ed*"):
                left.unlink()
        for how in ("fork", "exec"):
            with self.subTest(how=how, at="a unix socket"):
                self.assertTrue(self.fork_workers(how, server, str(self.work / f"socket-{how}")))
            for left in self.work.glob("s*ed*"):
                left.unlink()

    def test_a_web_server_with_forked_workers(self):
        out = self.shell("\n".join([BUSY] * 3) + "\nsleep 0.3; exec /usr/bin/python3 web.py", caps=session_case.SPREAD, nodes=3, timeout=120)
        self.assertEqual(out.split("\n"), ["True", f"{[9] * 6}"])


if __name__ == "__main__":
    session_case.main()
