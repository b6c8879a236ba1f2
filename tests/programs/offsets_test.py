"""One offset of a file for processes of several nodes, as fork(2) shares it: placed at exec, at their fork, or moved while they read.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from session_case import BUSY, SessionCase

LINES = 400
# The node that the shell itself is on.
HERE = "read -r here </proc/sys/kernel/hostname"
# From then on commands are started elsewhere.
SPREADING = f"{BUSY}; {HERE}; until [ $(cat /proc/sys/kernel/hostname) != $here ]; do sleep 0.05; done"


# Reads line after line, as soon as there are four of them.
READER = """
import os, sys, time
os.mkdir("ready/" + sys.argv[1])
while len(os.listdir("ready")) < 4:
    time.sleep(0.01)
while line := os.read(3, 21):
    os.write(1, os.uname().nodename.encode() + b": " + line)
    time.sleep(0.001)
"""

# Children that read a line, and their parent.
FORKS = """
import os
def say(reader):
    line = reader()
    os.write(1, b"%s: %s" % (os.uname().nodename.encode(), line))
def by_bytes():
    line = b""
    while not line.endswith(b"\\n"):
        line += os.read(0, 1)
    return line
def by_blocks():
    block = os.read(0, 512)
    line = block[:block.index(b"\\n") + 1]
    os.lseek(0, len(line) - len(block), os.SEEK_CUR)
    return line
for i in range(20):
    child = os.fork()
    if child == 0:
        say(by_blocks if i % 2 else by_bytes)
        os._exit(0)
    os.waitpid(child, 0)
    say(by_bytes if i % 3 else by_blocks)
"""


class OffsetsTest(SessionCase):
    def setUp(self):
        text = "".join(f"line {i:03} of the file\n" for i in range(LINES))
        (self.work / "lines").write_text(text, encoding="ascii")
        self.lines = text.splitlines()

    def lines_read(self, out, least_nodes=2):
        """What was read, in order, of lines "NODE: LINE"; by processes of several nodes."""
        pairs = [line.split(": ", 1) for line in out.splitlines()]
        self.assertGreaterEqual(len({node for node, _ in pairs}), least_nodes, out)
        return [line for _, line in pairs]

    def test_children_at_their_fork(self):
        """Each reads a line, as does their parent between them; some seek back what they do not need."""
        (self.work / "forks.py").write_text(FORKS, encoding="ascii")
        self.assertEqual(self.lines_read(self.shell(f"{SPREADING}; python3 forks.py <lines")), self.lines[:40])

    def test_children_at_once(self):
        """Nothing is read twice, and nothing is lost; one of them is where the file is opened."""
        (self.work / "reader.py").write_text(READER, encoding="ascii")
        out = self.shell(f"{SPREADING}; exec 3<lines; mkdir ready; for i in 1 2 3; do python3 reader.py $i >out.$i & done\n"
                         "krg_capset -e -DISTANT_FORK; python3 reader.py 4 >out.4 & wait; cat out.?")
        self.assertEqual(sorted(self.lines_read(out)), self.lines)

    def test_commands(self):
        """The shell reads lines, commands read between them, and seek back what they do not need."""
        script = ("{ for i in {1..10}; do read -r x; echo \"$x\"; head -n 2; python3 -c 'import os; os.read(0, 5)'; sed -u 1q; done; } <lines\n"
                  "(head -c 10; sort | head -3) <lines; while read -r x; do uname >/dev/null; echo \"$x\"; done <lines | tail -1\n"
                  "exec 4<lines; head -n 1 <&4; tail -n 1 <&4; cat <&4; echo end")
        native = self.run_program(["bash", "-c", script], check=True).stdout.strip()
        self.assertEqual(self.shell(f"{SPREADING}; {script}"), native)

    def test_one_that_moves(self):
        """A shell that reads moves about; what it is asked for, and its parent, read by turns."""
        out = self.shell(
            "mkfifo go done; exec 3<lines\n"
            f"say() {{ {HERE}; echo \"$here: $1\"; }}\n"
            "(exec 4<go 5>done; while read -r -u4 what; do read -r -u3 x; say \"$x\"; echo >&5; done) & reader=$!\n"
            "exec 4>go 5<done\n"
            "for node in 1 2 0 3 1 0 2 3; do krg_migrate $reader $node\n"
            "  for i in 1 2 3; do echo go >&4; read -r -u5 x; read -r -u3 x; say \"$x\"; head -n 1 <&3 | sed 's/^/head: /'; done\n"
            "done; exec 4>&-; wait $reader; read -r -u3 x; say \"$x\"", caps="--caps=+CAN_MIGRATE")
        self.assertEqual(self.lines_read(out, 4), self.lines[:73])

    def test_its_parent_goes_on(self):
        """What it has read and sought elsewhere is there when its parent goes on; it moves on, and ends elsewhere."""
        for path in ("1", "1 2", "2 3 1"):
            out = self.shell(
                f"exec 3<lines; read -r -u3 a; (read -r -u3 b; for node in {path}; do krg_migrate $BASHPID $node; read -r -u3 c; echo \"$c\"; done\n"
                "head -n 1 <&3; exit 0); read -r -u3 d; echo \"$d\"; { head -c 10 >/dev/null; krg_migrate $BASHPID 2; head -n 1; read -r e; echo \"$e\"; } <&3",
                caps="--caps=+CAN_MIGRATE")
            moves = len(path.split())
            *wanted, tail = self.lines[2:2 + moves + 2] + [self.lines[moves + 4][10:]]
            self.assertEqual(out.splitlines(), [*wanted, tail, self.lines[moves + 5]], path)


if __name__ == "__main__":
    session_case.main()
