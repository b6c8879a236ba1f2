"""What a connected socket costs a server that has moved often: the time of 50 requests of one client that stays connected, and
what all krgds have open, after so many moves.

    tests/perf/moved_socket.py [--build DIR] [--moves 200]

SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import subprocess
import sys
import tempfile

SERVER = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
open("port", "w").write(str(listener.getsockname()[1]))
connection = listener.accept()[0]
while data := connection.recv(4096): connection.sendall(data)
"""
CLIENT = """
import os, socket, subprocess, sys, time
pid, moves = int(sys.argv[1]), int(sys.argv[2])
connection = socket.create_connection(("127.0.0.1", int(open("port").read())))
def requests():
    begun = time.monotonic()
    for number in range(50):
        connection.sendall(b"x" * 100)
        got = 0
        while got < 100: got += len(connection.recv(4096))
    return (time.monotonic() - begun) * 1000
moved = 0
for wanted in (0, 1, 2, moves // 2, moves):
    while moved < wanted:
        moved += subprocess.run(["krg_migrate", str(pid), str(1 + moved % 3)], stderr=subprocess.DEVNULL).returncode == 0
    requests()
    print(f"{moved:4} moves: {min(requests() for _ in range(3)):7.2f} ms for 50 requests", flush=True)
"""


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--moves", type=int, default=200)
    asked = parser.parse_args()
    build = os.path.abspath(asked.build)
    env = dict(os.environ, PATH=f"{build}/bin:" + os.environ["PATH"])
    with tempfile.TemporaryDirectory() as folder:
        for name, text in (("server.py", SERVER), ("client.py", CLIENT)):
            with open(f"{folder}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        script = ("/usr/bin/python3 server.py & until [ -s port ]; do sleep 0.05; done\n"
                  f"/usr/bin/python3 client.py $! {asked.moves}; wait")
        return subprocess.run(["krgrun", "-N", "4", "--caps=+CAN_MIGRATE", "bash", "-c", script], cwd=folder, env=env,
                              stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
