"""Programs that have the master of a pseudo-terminal (script, expect, Python's pty) move to other nodes, while the terminal's own
processes stay: the terminal is what it is natively.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import subprocess

import session_case
from session_case import SessionCase

CAPS = "--caps=+CAN_MIGRATE"

# Has a terminal with a shell in it, and does what it is told line by line: how the master looks is asked each time.
MASTER = r'''
import fcntl, os, pty, select, struct, sys, termios
SHELL = """stty -echo; while read line; do
  case $line in
    much*) head -c 300000 /dev/zero | tr '\\\\0' x; echo;;
    *) echo "got $line on $(uname -n), $(stty size)";;
  esac
done; exit 7"""
pid, master = pty.fork()
if pid == 0: os.execv("/bin/sh", ["sh", "-c", SHELL])
def command(request, room): return fcntl.ioctl(master, request, room)
TIOCGPTN = 0x80045430
number = command(TIOCGPTN, bytes(4))
def read_line():
    line = b""
    while not line.endswith(b"\n"): line += os.read(master, 65536)
    return line.decode().strip()
def how():
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("4H", step, 70 + step, 0, 0))
    size = struct.unpack("4H", command(termios.TIOCGWINSZ, bytes(8)))[:2]
    is_same = command(TIOCGPTN, bytes(4)) == number and os.isatty(master) and os.tcgetpgrp(master) == pid
    echoes = termios.tcgetattr(master)[3] & termios.ECHO
    waits, _, _ = select.select([master], [], [], 0)
    try: os.set_blocking(master, False); os.read(master, 1); blocks = "no"
    except BlockingIOError: blocks = "would"
    os.set_blocking(master, True)
    return f"{size} {is_same} {echoes} {waits} {blocks}"
step, left = 20, 0
while termios.tcgetattr(master)[3] & termios.ECHO: pass
for said in sys.stdin:
    said = said.strip(); step += 1
    if said == "much": os.write(master, b"much\n"); left = 300002 - len(os.read(master, 1000)); print(said, flush=True); continue
    if said == "rest":
        while left > 0: left -= len(os.read(master, 65536))
        print(left, flush=True); continue
    looks = how()
    os.write(master, said.encode() + b"\n")
    select.select([master], [], [])
    print(read_line(), looks, os.uname().nodename, flush=True)
os.close(master)
print("ended", os.waitpid(pid, 0)[1])
'''
TOLD = """
coproc master { exec /usr/bin/python3 master.py; }
pid=$master_PID
tell() { echo $1 >&${master[1]}; read -r said <&${master[0]}; echo "$said"; }
tell first
for node in $nodes; do krg_migrate $pid $node || exit; tell at$node; done
krg_migrate $pid 2; tell much; krg_migrate $pid 1; tell rest; krg_migrate $pid 0; tell much; krg_migrate $pid 3; tell rest
eval "exec ${master[1]}>&-"; cat <&${master[0]}; wait $pid
"""

# What runs in the terminal of script(1), and of expect(1).
WORK = "for ((i = 0; i < 40; i++)); do echo line $i $(tput cols 2>/dev/null); sleep 0.05; done; exit 9"
EXPECT = """
set timeout 30
spawn bash --norc --noprofile
for {set i 0} {$i < 40} {incr i} {
  send "echo answer-\\$(($i + 1000))-\\r"
  expect "answer-[expr $i + 1000]-" {} timeout {puts "none of $i"; exit 1}
  sleep 0.03
}
send "exit 5\\r"
expect eof
puts "ended [lindex [wait] 3]"
"""
MOVED = """
moves=0
for ((i = 0; i < 30; i++)); do
  for node in 1 2 0 3; do sleep 0.07; kill -0 $pid 2>/dev/null || break 2; krg_migrate $pid $node 2>>errors && moves=$((moves + 1)); done
done
wait $pid; echo status $?
[ $moves -gt 3 ] && echo moved || cat errors
"""


class TerminalMastersTest(SessionCase):
    def test_a_master_moves(self):
        (self.work / "master.py").write_text(MASTER, encoding="ascii")
        nodes = [2, 1, 0, 3, 0]
        out = self.shell(f"nodes='{' '.join(map(str, nodes))}'\n{TOLD}", caps=CAPS).split("\n")
        wanted = [f"got {said} on n0, {21 + i} {91 + i} ({21 + i}, {91 + i}) True 0 [] would n{node}"
                  for i, (said, node) in enumerate([("first", 0), *((f"at{node}", node) for node in nodes)])]
        self.assertEqual(out, [*wanted, "much", "0", "much", "0", "ended 1"])

    def test_script_moves_while_its_shell_works(self):
        (self.work / "work.sh").write_text(WORK, encoding="ascii")
        native = subprocess.run(["script", "-qec", "bash work.sh", "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                                cwd=self.work, check=False)
        out = self.shell(f"script -qefc 'bash work.sh' typescript </dev/null >shown & pid=$!\n{MOVED}", caps=CAPS).split("\n")
        self.assertEqual((out, native.returncode), (["status 9", "moved"], 9))
        self.assertEqual((self.work / "shown").read_text(encoding="ascii"), native.stdout)

    def test_expect_moves_while_it_talks(self):
        (self.work / "talk.exp").write_text(EXPECT, encoding="ascii")
        out = self.shell(f"expect talk.exp </dev/null >shown & pid=$!\n{MOVED}", caps=CAPS).split("\n")
        shown = (self.work / "shown").read_text(encoding="ascii")
        self.assertEqual(out, ["status 0", "moved"], shown)
        self.assertTrue(shown.endswith("ended 5\n"), shown)


if __name__ == "__main__":
    session_case.main()
