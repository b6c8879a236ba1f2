"""An interactive bash on a pseudo-terminal: its jobs execute on other nodes, and Ctrl-C, Ctrl-Z, bg, fg,
kill %1, jobs and exit do what they do at home. SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import time

import session_case
from session_case import BUSY, SPREAD, SessionCase
from terminal import PROMPT, TIME_LIMIT_S, Terminal


class JobControlTest(SessionCase):
    def setUp(self):
        # The prompt's text is not in the command that sets it, so that its echo is not taken for it.
        environment = self.environment(PS1="krg-''ready> ", TERM="dumb", BASH_SILENCE="1")
        arguments = self.command(["krgrun", "-N", "2", SPREAD, "bash", "--norc", "--noediting", "-i"])
        self.terminal = Terminal(arguments, environment, self.work, self.owner())
        self.addCleanup(self.terminal.close)
        self.terminal.type("PS1='krg-''ready> '\n")
        self.terminal.expect(re.escape(PROMPT))
        self.run_line = self.terminal.run
        self.run_line(BUSY)
        end = time.monotonic() + TIME_LIMIT_S
        while "n1" not in self.run_line("hostname"):  # the nodes have yet to tell each other
            self.assertLess(time.monotonic(), end, "nothing is placed elsewhere")

    def where(self):
        """The nodes of the shell and of its only job, and what that executes."""
        told = self.run_line("krg_where $$ $(jobs -p %1)")
        (home, _), (node, command) = re.findall(r"^\s*\d+\s+(\d+)\s+\S+\s+(\S+)", told, re.M)  # PID NODE HOST COMMAND
        return home, node, command

    def start_elsewhere(self, start):
        """What `start` starts, the only job, executes on another node than the shell."""
        end = time.monotonic() + 3 * TIME_LIMIT_S
        while True:
            start()
            home, node, command = self.where()
            while command == "bash" and "Running" in self.run_line("jobs"):  # it has yet to exec
                home, node, command = self.where()
                self.assertLess(time.monotonic(), end, command)
            if node != home:
                return
            # The other node was as busy at that moment, as far as this one knew; or it was stopped before its exec.
            self.assertLess(time.monotonic(), end, "nothing is placed elsewhere")
            self.run_line("kill -KILL %1; wait %1")
            self.run_line("jobs")

    def test_ctrl_c_ends_the_foreground_job(self):
        self.terminal.type("sleep 1000\n")
        self.terminal.expect("sleep 1000\n")
        time.sleep(0.5)
        self.terminal.type("\x03")
        self.terminal.expect(re.escape(PROMPT))
        self.assertEqual(self.run_line("echo $?").strip(), "130")

    def test_ctrl_c_ends_a_pipeline(self):
        self.terminal.type("sleep 1000 | cat | cat\n")
        self.terminal.expect("cat\n")
        time.sleep(0.5)
        self.terminal.type("\x03")
        self.terminal.expect(re.escape(PROMPT))
        self.assertEqual(self.run_line("echo ${PIPESTATUS[*]}").strip().split()[0], "130")

    def test_ctrl_z_bg_and_fg(self):
        def start_and_stop():
            self.terminal.type("sleep 1000\n")
            self.terminal.expect("sleep 1000\n")
            time.sleep(0.5)
            self.terminal.type("\x1a")
            self.terminal.expect("Stopped")
            self.terminal.expect(re.escape(PROMPT))
            self.assertIn("Stopped", self.run_line("jobs"))
        self.start_elsewhere(start_and_stop)
        self.assertIn("sleep 1000 &", self.run_line("bg"))
        self.assertIn("Running", self.run_line("jobs"))
        self.terminal.type("fg\n")
        self.terminal.expect("fg\nsleep 1000\n")
        time.sleep(0.2)
        self.terminal.type("\x03")
        self.terminal.expect(re.escape(PROMPT))
        self.assertEqual(self.run_line("echo $?").strip(), "130")

    def test_kill_of_a_background_job(self):
        self.start_elsewhere(lambda: self.run_line("sleep 1000 &"))
        self.run_line("kill %1; wait %1; echo status $?")
        self.assertNotIn("Running", self.run_line("jobs"))

    def test_a_stopped_job_is_killed(self):
        self.run_line("sleep 1000 &")
        self.run_line("kill -STOP %1; sleep 0.3")
        self.assertIn("Stopped", self.run_line("jobs"))
        self.run_line("kill -KILL %1; sleep 0.3")
        self.assertNotIn("Stopped", self.run_line("jobs"))

    def test_exit_gives_the_status(self):
        self.terminal.type("exit 7\n")
        self.assertEqual(self.terminal.end(), 7)


if __name__ == "__main__":
    session_case.main()
