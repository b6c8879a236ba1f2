"""Servers that fork: children that close the listening sockets which they have from their parent run on other nodes, and those that
accept; PostgreSQL with backends and nginx with workers on several nodes. SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import pathlib

import session_case
from session_case import BUSY, SessionCase

# Serves ten connections, each by a child: one that closes the socket that listens, or one that accepts itself.
SERVER = r"""
import os, socket, sys, time
closes = sys.argv[1] == "closes"
listener = socket.create_server(("127.0.0.1", 0))
def answer(peer):
    asked = peer.recv(100).decode()
    time.sleep(0.2)
    peer.sendall(f"{asked} {os.uname().nodename}".encode())
    os._exit(0)
def child(peer):
    if os.fork() != 0: return
    if peer is None: peer = listener.accept()[0]
    listener.close()
    answer(peer)
for number in range(10):
    if not closes: child(None)
    client = socket.create_connection(listener.getsockname())
    if closes: child(listener.accept()[0])
    client.sendall(str(number).encode())
    os.write(1, client.recv(100) + b"\n")
    if os.wait()[1] != 0: os.write(1, b"the child failed\n")
"""

# An event loop whose ten children make one of their own, as libevent's and libuv's do: they close what they have of their parent's.
EVENTS = r"""
import os, select, time
loop, (there, here) = select.epoll(), os.pipe()
loop.register(there, select.EPOLLIN)
for number in range(10):
    if os.fork() == 0:
        loop.close()
        own, (ready, go) = select.epoll(), os.pipe()
        own.register(ready, select.EPOLLIN)
        time.sleep(0.1)
        os.write(go, b"x")
        os._exit(0 if own.poll(10) == [(ready, select.EPOLLIN)] and os.write(here, f"{number} {os.uname().nodename}\n".encode()) else 1)
    assert loop.poll(30) == [(there, select.EPOLLIN)]
    os.write(1, os.read(there, 100))
    if os.wait()[1] != 0: os.write(1, b"the child failed\n")
"""

# The master of a terminal in the place of the event loop.
TERMINAL = r"""
import os, time
(master, slave), (there, here) = os.openpty(), os.pipe()
os.close(slave)
for number in range(10):
    if os.fork() == 0:
        os.close(master)
        time.sleep(0.1)
        os._exit(0 if os.write(here, f"{number} {os.uname().nodename}\n".encode()) else 1)
    os.write(1, os.read(there, 100))
    if os.wait()[1] != 0: os.write(1, b"the child failed\n")
"""

# Its data, a busy first node, a server there whose children may go elsewhere; four clients that change the same rows, then a query by
# workers beside the backend that is asked.
POSTGRESQL = r"""
PATH=$POSTGRESQL:$PATH
export PGHOST=$PWD/data PGUSER=me PGDATABASE=postgres
krg_capset -e -DISTANT_FORK
initdb -D data -A trust -U me --no-sync >initdb.log 2>&1 || cat initdb.log
""" + f"{BUSY}\n{BUSY}\n{BUSY}\n" + r"""sleep 0.3
/proc/self/root$POSTGRESQL/postgres -D data -k $PGHOST -c listen_addresses= -c shared_buffers=8MB -c fsync=off >>log 2>&1 </dev/null & server=$!
krg_capset -e -DISTANT_FORK
for ((i = 0; i < 200; i++)); do psql -Atc 'select 1' >/dev/null 2>&1 && break; sleep 0.1; done
pgbench -i -q -s 1 2>/dev/null
for i in 1 2 3; do psql -Atc 'select pg_sleep(0.2)' >/dev/null; done
pgbench -n -c 4 -t 25 >bench 2>&1 & bench=$!
until [ "$(psql -Atc "select count(*) from pg_stat_activity where application_name = 'pgbench'")" = 4 ] || ! kill -0 $bench 2>/dev/null; do sleep 0.02; done
for backend in $(psql -Atc "select pid from pg_stat_activity where application_name = 'pgbench'"); do krg_where $backend 2>/dev/null; done >where
krg_where $server
wait $bench || cat bench
psql -Atc 'select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
                  (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history), (select count(*) from pgbench_history)'
export PGOPTIONS="-c max_parallel_workers_per_gather=2 -c min_parallel_table_scan_size=0 -c parallel_setup_cost=0 -c parallel_tuple_cost=0"
psql -Atc 'explain (analyze, costs off, timing off) select sum(aid) from pgbench_accounts' | grep Launched
psql -Atc 'select count(*), sum(aid) from pgbench_accounts'
kill -INT $server; wait $server; echo server $?
grep -E 'ERROR|FATAL|PANIC|terminated' log | grep -v 'the database system is starting up'
cut -c1-20 where
"""

# Three workers, whom their master tells by sockets that it passes to them to end: when it reads its configuration anew, and at its own end.
NGINX = r"""
cat >nginx.conf <<END
worker_processes 3; daemon off; pid $PWD/nginx.pid; error_log $PWD/nginx.log notice;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server { listen unix:$PWD/http.sock; location / { root $PWD/pages; } }
}
END
mkdir pages; seq 100000 >pages/numbers
krg_capset -d +DISTANT_FORK
""" + f"{BUSY}\n{BUSY}\n{BUSY}\n" + r"""sleep 0.3
/usr/sbin/nginx -p $PWD -c nginx.conf 2>>nginx.log & server=$!
krg_capset -d -DISTANT_FORK
ask() {
    for ((i = 0; i < 12; i++)); do
        /usr/bin/python3 -c 'import hashlib, http.client, socket, sys
class Local(http.client.HTTPConnection):
    def connect(self): self.sock = socket.socket(socket.AF_UNIX); self.sock.connect("http.sock")
link = Local("localhost"); link.request("GET", "/numbers"); print(hashlib.sha256(link.getresponse().read()).hexdigest())'
    done | uniq -c
}
workers() { pgrep -P $server | sort -n; }
until [ -s nginx.pid ] && [ "$(workers | wc -l)" = 3 ]; do sleep 0.05; done
ask
for worker in $(workers); do krg_where $worker; done >where
before=$(workers); kill -HUP $server
until [ "$(workers | wc -l)" = 3 ] && [ -z "$(comm -12 <(echo "$before") <(workers))" ]; do sleep 0.05; done
ask
kill -QUIT $server; wait $server; echo server $?
cat where
"""


class ServersTest(SessionCase):
    def answers(self, what, server=SERVER):
        (self.work / "server.py").write_text(server, encoding="ascii")
        out = self.shell(f"krg_capset -d +DISTANT_FORK; {BUSY}\n{BUSY}\n{BUSY}\nsleep 0.3; krg_capset -e -DISTANT_FORK; /usr/bin/python3 server.py {what}; true")
        lines = [line.split() for line in out.split("\n")]
        self.assertEqual([line[0] for line in lines], [str(i) for i in range(10)], out)
        return [line[1] for line in lines]

    def test_children_that_close_the_listening_socket_go_elsewhere(self):
        hosts = self.answers("closes")
        self.assertEqual(hosts[0], "n0", "what its children do was not known yet")
        self.assertGreater(len(set(hosts)), 1, hosts)

    def test_children_that_close_an_epoll_instance_go_elsewhere(self):
        hosts = self.answers("", EVENTS)
        self.assertEqual(hosts[:2], ["n0"] * 2, "what its children do was not known yet")
        self.assertGreater(len(set(hosts)), 1, hosts)

    def test_children_that_close_the_master_of_a_terminal_go_elsewhere(self):
        hosts = self.answers("", TERMINAL)
        self.assertEqual(hosts[:2], ["n0"] * 2, "what its children do was not known yet")
        self.assertGreater(len(set(hosts)), 1, hosts)

    def test_children_that_accept_go_elsewhere(self):
        self.assertGreater(len(set(self.answers("accepts"))), 1)

    def test_postgresql_with_backends_on_several_nodes(self):
        installed = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not installed or not self.has_shared_memory() or not self.as_user and os.geteuid() == 0:
            self.skipTest("PostgreSQL does not run as root, and needs memory that nodes share")
        out = self.shell(POSTGRESQL, env={"POSTGRESQL": str(installed[-1].parent)}, timeout=200).split("\n")
        server, sums, workers, counted, status, *backends = [line.split() for line in out]
        self.assertEqual((server[2], status), ("n0", ["server", "0"]), out)
        self.assertEqual((workers, counted), (["Workers", "Launched:", "2"], ["100000|5000050000"]), out)
        *balances, history = sums[0].split("|")
        self.assertEqual((len(set(balances)), history), (1, "100"), out)
        self.assertTrue({line[2] for line in backends} - {"n0"}, out)

    def test_nginx_with_workers_on_several_nodes(self):
        if not os.access("/usr/sbin/nginx", os.X_OK):
            self.skipTest("no nginx")
        out = self.shell(NGINX).split("\n")
        page = hashlib.sha256("".join(f"{i}\n" for i in range(1, 100001)).encode()).hexdigest()
        self.assertEqual([line.split() for line in out[:3]], [["12", page], ["12", page], ["server", "0"]], out)
        self.assertGreater(len({line.split()[2] for line in out[3:]}), 1, out)


if __name__ == "__main__":
    session_case.main()
