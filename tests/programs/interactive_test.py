"""What people do at the prompt of an interactive bash whose commands execute on other nodes: answer questions,
read a pager, edit a file, stop and resume what reads, start a shell inside the shell.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import shutil
import subprocess
import time

import session_case
from session_case import BUSY, NODES, SPREAD, SessionCase
from terminal import PROMPT, TIME_LIMIT_S, Terminal

CTRL_C, CTRL_D, CTRL_Z, ESCAPE = "\x03", "\x04", "\x1a", "\x1b"


class InteractiveTest(SessionCase):
    def setUp(self):
        environment = self.environment(TERM="xterm", INPUTRC="/dev/null")
        arguments = self.command(["krgrun", "-N", str(NODES), SPREAD, "bash", "--norc", "--noediting", "-i"])
        self.terminal = Terminal(arguments, environment, self.work, self.owner())
        self.addCleanup(self.terminal.close)
        self.terminal.resize(40, 100)
        # The prompt's text is not in the command that sets it, so that its echo is not taken for it.
        self.type("PS1='krg-''ready> '")
        self.expect_prompt()
        self.run_line(BUSY)
        home, end = self.run_line("echo $HOSTNAME"), time.monotonic() + TIME_LIMIT_S
        while self.run_line("uname -n") == home:  # the nodes have yet to tell each other
            self.assertLess(time.monotonic(), end, "nothing is placed elsewhere")

    def type(self, line):
        self.terminal.type(line + "\n")

    def expect(self, pattern):
        return self.terminal.expect(pattern)

    def expect_prompt(self):
        return self.expect(re.escape(PROMPT))[0]

    def ask(self, command, question, answer):
        """Types a command, waits for its question, answers; what came after the answer."""
        self.type(command)
        self.expect(re.escape(command) + "\n")
        self.expect(question)
        time.sleep(0.1)  # it reads by now
        self.terminal.type(answer)
        return self.expect_prompt()

    def run_line(self, command):
        return self.terminal.run(command).strip()

    def wait_until_stopped(self):
        """Until the first job has stopped."""
        end = time.monotonic() + TIME_LIMIT_S
        while "Stopped" not in (jobs := self.run_line("jobs")):
            self.assertLess(time.monotonic(), end, jobs)
            time.sleep(0.1)

    def test_what_programs_see_of_the_terminal(self):
        self.assertEqual(self.run_line("for n in 0 1 2; do python3 -c \"import os; print(os.isatty($n))\"; done"),
                         "True\nTrue\nTrue")
        self.assertEqual(self.run_line("stty size; tput cols; tput lines"), "40 100\n100\n40")
        self.assertEqual(self.run_line("python3 -c 'import os; print(os.tcgetpgrp(0) == os.getpgrp())'"), "True")
        # Of a child of a child, too, wherever each of them is.
        self.assertEqual(self.run_line("sh -c 'for i in 1 2 3 4; do python3 -c \"import os; print(os.isatty(2))\"; done'"),
                         "True\n" * 3 + "True")
        self.assertIn("-echo ", self.run_line("stty -echo; stty -a; stty echo; stty -a | grep -c -w -- -echo") + " ")

    def test_the_window_size_changes(self):
        self.type("bash -c 'trap \"stty size; exit\" WINCH; echo wait''ing; while :; do sleep 0.1; done'")
        self.expect("waiting")
        self.terminal.resize(33, 77)
        self.assertIn("33 77", self.expect_prompt())

    def test_who_is_told_of_a_new_size_sees_it(self):
        """At the first signal, on whatever node."""
        program = ("import os, signal; signal.signal(signal.SIGWINCH, lambda *_: (os.write(1, (str(os.get_terminal_size()) + chr(10)).encode()), os._exit(0)));"
                   "print(\"wait\"\"ing\"); [signal.pause() for _ in iter(int, 1)]")
        for columns in range(71, 79):
            self.type(f"python3 -c '{program}'")
            self.expect("waiting")
            self.terminal.resize(33, columns)
            self.assertIn(f"columns={columns}, lines=33", self.expect_prompt())

    def test_output_keeps_its_order(self):
        lines = self.run_line("for i in 1 2 3 4 5 6; do echo a$i; sh -c \"echo b$i\"; echo c$i >&2; sh -c \"echo d$i >&2\"; done")
        self.assertEqual(lines.split(), [f"{letter}{i}" for i in range(1, 7) for letter in "abcd"])

    def test_questions_are_answered(self):
        self.assertIn("got joe", self.ask("bash -c 'read -p \"who\"\"? \" x; echo got $x'", r"who\? ", "joe\n"))
        self.assertIn("got ann", self.ask("python3 -c 'print(\"got\", input(\"na\"\"me? \"))'", r"name\? ", "ann\n"))
        hidden = self.ask("bash -c 'read -s -p \"pass\"\"word: \" x; echo; echo got $x'", "password: ", "secret\n")
        self.assertEqual(hidden.split(), ["got", "secret"])

    def test_the_controlling_terminal_is_opened_by_name(self):
        self.assertEqual(self.run_line("sh -c 'echo seen >/dev/tty' >/dev/null"), "seen")
        self.assertIn("got key", self.ask("echo x | sh -c 'echo ask''ing; read y </dev/tty; echo got $y'", "asking", "key\n"))
        secret = self.ask("echo x | /usr/bin/python3 -c 'import getpass; print(\"got\", getpass.getpass(\"pass\"\"phrase\"))'",
                          "passphrase", "hush\n")
        self.assertEqual(secret.split(), ["got", "hush"])

    def test_input_that_nobody_reads_is_the_shells(self):
        self.type("sleep 1")
        self.type("echo type''ahead")
        self.expect("typeahead\n")

    def test_cat_until_end_of_file(self):
        self.type("cat")
        self.expect("cat\n")
        time.sleep(0.5)
        self.type("line")
        self.expect("line\nline\n")
        self.terminal.type(CTRL_D)
        self.expect_prompt()

    def test_a_reader_in_the_background_stops(self):
        self.run_line("cat >copy &")
        self.wait_until_stopped()
        self.type("fg")
        self.expect("cat > ?copy\n")
        time.sleep(0.3)
        self.type("text")
        self.terminal.type(CTRL_D)
        self.expect_prompt()
        self.assertEqual((self.work / "copy").read_text(encoding="ascii"), "text\n")

    def test_a_reader_is_stopped_and_goes_on(self):
        self.type("cat")
        self.expect("cat\n")
        time.sleep(0.5)
        self.terminal.type(CTRL_Z)
        self.expect("Stopped")
        self.expect_prompt()
        self.type("fg")
        self.expect("cat\n")
        time.sleep(0.3)
        self.type("again")
        self.expect("again\nagain\n")
        self.terminal.type(CTRL_C)
        self.expect_prompt()

    def test_kill_of_a_job(self):
        self.run_line("sleep 1000 &")
        self.run_line("kill %1; wait %1")
        self.assertEqual(self.run_line("jobs -r"), "")

    def test_a_pager(self):
        for command in ("seq 500 | less", "less numbers"):
            self.run_line("seq 500 >numbers")
            self.type(command)
            self.expect(r"\n39\n")
            time.sleep(0.2)
            self.terminal.type("G")
            self.expect(r"500\n")
            self.terminal.type("q")
            self.expect_prompt()

    def test_an_editor(self):
        editor = shutil.which("vim") or shutil.which("vi")
        if not editor:
            self.skipTest("no vim")
        self.type(f"{editor} -u NONE note")
        self.expect("note")
        time.sleep(1)
        self.terminal.type("ihello")
        self.expect("hello")
        self.terminal.type(ESCAPE)
        time.sleep(0.3)
        self.terminal.type(":wq\n")
        self.expect_prompt()
        self.assertEqual((self.work / "note").read_text(encoding="ascii"), "hello\n")

    def test_a_shell_inside_the_shell(self):
        self.use_an_inner_shell(busy=":")

    def test_a_shell_inside_the_shell_whose_jobs_are_elsewhere(self):
        self.use_an_inner_shell(BUSY)

    def use_an_inner_shell(self, busy):
        self.type("bash --norc --noediting -i")
        time.sleep(0.8)
        self.type("PS1='in''ner> '")
        self.expect("inner> ")
        self.type(busy)
        self.expect("inner> ")
        self.assertNotIn("no job control", self.terminal.text)
        self.type("sleep 1000")
        time.sleep(0.7)
        self.terminal.type(CTRL_Z)
        self.expect("Stopped")
        self.expect("inner> ")
        self.type("fg")
        time.sleep(0.4)
        self.terminal.type(CTRL_C)
        self.expect("inner> ")
        self.type("echo status $?")
        self.expect("status 130")
        self.type("cat &")
        self.expect("inner> ")
        end = time.monotonic() + TIME_LIMIT_S
        state = None
        while state != "Stopped":
            self.assertLess(time.monotonic(), end, "cat reads in the background")
            time.sleep(0.2)
            self.type("jobs")
            state = self.expect("(Stopped|Running) +cat")[1][1]
        # bash's wait does not wait for a job that it still takes for a stopped one.
        self.type("kill %1; while jobs -s | grep -q cat; do sleep 0.1; done")
        self.type("wait; exit 3")
        self.expect_prompt()
        self.assertEqual(self.run_line("echo $?"), "3")

    def test_exit(self):
        self.type("exit 5")
        self.assertEqual(self.terminal.end(), 5)


# Reads single keys, saves its shell, and tells the terminal's size when that changes, each by one write: krgrun may
# still be at its progress bar.
KEYS = """
import os, signal, subprocess, sys, termios, tty
signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b"size %d %d\\n" % os.get_terminal_size(0)))
before = termios.tcgetattr(0)
tty.setcbreak(0)
keys = termios.tcgetattr(0)
subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getppid())], check=True)
print(f"saved {termios.tcgetattr(0) == keys} {os.tcgetpgrp(0) == os.getpgrp()}")
print(f"key {os.read(0, 1)}")
termios.tcsetattr(0, termios.TCSADRAIN, before)
"""


class SavedTerminalTest(SessionCase):
    def terminal(self, *arguments):
        environment = self.environment(PS1=PROMPT, TERM="xterm")
        return Terminal([*self.command(["krgrun", "--cluster=none", "-N", "1", *arguments])], environment, self.work, self.owner())

    def test_a_job_of_a_shell_on_another_terminal(self):
        """It has the foreground and its settings again, and is told of the new size; the shell goes on after it."""
        (self.work / "keys.py").write_text(KEYS, encoding="ascii")
        shell = self.terminal("--caps=+CHECKPOINTABLE", "bash", "--norc", "--noprofile", "--noediting", "-i")
        self.addCleanup(shell.close)
        shell.expect(PROMPT)
        shell.resize(24, 80)
        shell.type("/usr/bin/python3 keys.py\n")
        progress, _ = shell.expect("ckpt version 1")
        self.assertIn("100 %", progress)
        shell.expect("saved True True")
        shell.kill()
        again = self.terminal(f"--restart={self.work / 'ckpt'}")
        self.addCleanup(again.close)
        again.expect("size 0 0")
        again.expect("saved True True")
        again.resize(33, 101)
        again.expect("size 101 33")
        again.type("x")
        again.expect("key b'x'")
        again.expect(PROMPT)
        again.type("exit 5\n")
        self.assertEqual(again.end(), 5)


class TmuxTest(SessionCase):
    """The same in a real terminal program."""

    def test_a_session_in_tmux(self):
        if not shutil.which("tmux"):
            self.skipTest("no tmux")
        tmux = ["tmux", "-L", self.dir.name, "-f", "/dev/null"]
        call = lambda *arguments: subprocess.run(self.command([*tmux, *arguments]), env=self.environment(), text=True,
                                                 cwd=self.work, capture_output=True, timeout=30, check=True).stdout
        call("new-session", "-d", "-x", "90", "-y", "30",
             f"krgrun -N {NODES} {SPREAD} bash --norc -i")
        self.addCleanup(subprocess.run, self.command([*tmux, "kill-server"]), check=False, capture_output=True)

        def until(text, holds=lambda text, screen: text in screen):
            end = time.monotonic() + TIME_LIMIT_S
            while not holds(text, screen := call("capture-pane", "-p")):
                self.assertLess(time.monotonic(), end, screen)
                time.sleep(0.1)

        type_keys = lambda *keys: call("send-keys", *keys)
        at_prompt = lambda: until("$" if self.as_user else "#", lambda text, screen: screen.rstrip().endswith(text))
        at_prompt()
        type_keys("stty size", "Enter")
        until("30 90")
        type_keys("sleep 1000", "Enter")
        time.sleep(0.7)
        type_keys("C-z")
        until("Stopped")
        type_keys("kill %1; cat", "Enter")
        time.sleep(0.7)
        type_keys("some words", "Enter")
        until("some words\nsome words")
        type_keys("C-c")
        at_prompt()  # until cat has ended, what is typed is its input
        type_keys("echo $((6*7))", "Enter")
        until("\n42")
        type_keys("exit", "Enter")


if __name__ == "__main__":
    session_case.main()
