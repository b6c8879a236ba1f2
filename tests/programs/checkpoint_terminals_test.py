"""Programs with pseudo-terminals of their own, saved and restarted: script, Python's pty, terminal multiplexers.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import shutil

import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"

# Has a shell on a pseudo-terminal, in whose every buffer something is when it saves itself.
PTY = """
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time
child, master = pty.fork()
if child == 0: os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
def read_until(text):
    seen = ""
    while text not in seen: seen += os.read(master, 999).decode()
    return seen
def ask(line, answer):
    os.write(master, line.encode() + b"\\n")
    return read_until(answer)
fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
ask("PS1='$ '; stty -echo; echo rea''dy", "ready")
ask("sleep 1000 & sleep 1000 | cat &", "$ ")
# A program in the foreground that reads nothing until it is told; lines and half a line wait for it, and what it has written.
os.write(master, b'''sh -c 'echo sta$((1))rted; until [ -e goes_on ]; do sleep 0.01; done; read a; read b; echo $a-$b; trap "echo got int$((1)); exit" INT; touch waits; while :; do sleep 0.02; done' \\n''')
read_until("sta1rted")
os.write(master, b"one\\ntwo")
spare, slave = pty.openpty()
attributes = termios.tcgetattr(slave); attributes[3] &= ~(termios.ICANON | termios.ECHO); termios.tcsetattr(slave, termios.TCSANOW, attributes)
os.write(slave, b"to the master\\n"); os.write(spare, b"to the sl"); time.sleep(0.1)
unused = os.posix_openpt(os.O_RDWR | os.O_NOCTTY) if hasattr(os, "posix_openpt") else os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
hung_up, closed = pty.openpty(); os.close(closed)
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
print("saved", os.read(spare, 99), os.read(slave, 99), termios.tcgetattr(slave)[3] == attributes[3])
polls = [(fd, select.poll()) for fd in (unused, hung_up)]
for fd, poll in polls: poll.register(fd, select.POLLIN)
print([bool(poll.poll(0) and poll.poll(0)[0][1] & select.POLLHUP) for fd, poll in polls])
os.write(master, b"-and-a-half\\n")
open("goes_on", "w").close()
print(read_until("half").strip())
while not os.path.exists("waits"): time.sleep(0.01)
os.unlink("waits"); os.unlink("goes_on")
os.write(master, b"\\x03")  # to the foreground
print("got int1" in read_until("got int1"))
print(ask("stty size; jobs -r | wc -l; [ -t 0 ] && : </dev/tty && echo control''led", "controlled").split("controlled")[0].split()[-3:], os.tcgetpgrp(master) == child)
os.write(master, b"kill $(jobs -p); exit 7\\n")
try:
    while os.read(master, 999): pass
except OSError: pass
print(os.waitpid(child, 0)[1] >> 8)
"""


class CheckpointTerminalsTest(CheckpointCase):
    def test_a_shell_on_a_pseudo_terminal(self):
        (self.work / "work.py").write_text(PTY, encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""), first.stdout)
        wanted = ["saved b'to the master\\r\\n' b'to the sl' True", "[False, True]", "one-two-and-a-half", "True",
                  "['33', '77', '2'] True", "7"]
        self.assertEqual(first.stdout.split("\n")[:-1], wanted)
        for nodes in (1, 2):
            again = self.restart("-N", str(nodes))
            self.assertEqual((again.returncode, again.stdout.split("\n")[:-1], again.stderr), (0, wanted, ""))

    def test_script(self):
        if not shutil.which("script"):
            self.skipTest("no script")
        work = "for i in {1..40}; do echo step $i; sleep 0.05; [ $i = 35 ] && until [ -e end ]; do sleep 0.02; done; done; tty >/dev/null && echo on a terminal"
        (self.work / "work").write_text(work, encoding="ascii")
        (self.work / "script").write_text("touch ready; exec script -qec 'bash work' typescript", encoding="ascii")
        self.compare("bash", "script")
        self.assertEqual((self.work / "typescript").read_text().count("step"), 40)

    def test_a_multiplexer(self):
        """Its server is a daemon with a listening socket; the shell in it works on."""
        if not shutil.which("tmux"):
            self.skipTest("no tmux")
        (self.work / "inside").write_text("exec 3>>steps; for i in {1..60}; do echo $i >&3; sleep 0.04; [ $i = 50 ] && until [ -e end ]; do sleep 0.02; done; done",
                                          encoding="ascii")
        (self.work / "script").write_text(
            "export TERM=linux; : >steps; tmux -S socket -f /dev/null new-session -d -x 80 -y 24 'bash inside; sleep 1000' || exit 1; touch ready\n"
            "until [ \"$(tail -n1 steps)\" = 60 ]; do sleep 0.05; done; cat steps\n"
            "tmux -S socket display-message -p '#{window_width}x#{window_height}'; tmux -S socket kill-server", encoding="ascii")
        self.compare("bash", "script")


if __name__ == "__main__":
    session_case.main()
