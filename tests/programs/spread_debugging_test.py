"""gdb on processes whose threads run on several nodes (krg_gdb).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import shutil
import unittest

import session_case
from session_case import SessionCase

CAPS = "--caps=+DISTANT_THREAD,+CAN_MIGRATE"


@unittest.skipUnless(shutil.which("gdb"), "no gdb")
class SpreadDebuggingTest(SessionCase):
    settings = {"KRGRUN_THREADS": "stay"}  # whether or not several nodes pay

    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def program(self, name="spread"):
        return self.build / "test-bin/programs" / name

    def test_gdb_looks_at_all_threads(self):
        out = self.shell(
            f"mkfifo gdb_input; : > gdb_output; {self.program()} moves < gdb_input >> gdb_output & exec 3> gdb_input; "
            "until read first computing waiting < gdb_output; do sleep 0.05; done; "
            "for round in 1 2; do krg_gdb $first -nx -batch -ex 'info threads' -ex 'thread apply all bt' -ex 'print tids[1] > 0' "
            "-ex 'thread apply 1 print $xmm9.v2_int64[0]' -ex 'thread apply 1 print $ymm9.v4_int64[0]' -ex 'print $mxcsr' -ex detach > gdb$round 2>&1; echo gdb $?; "
            "[ $round = 2 ] || krg_migrate $first 1; done; "
            "krg_gdb $$ -nx -batch 2> refused; exec 3>&-; wait $!; echo status $?; tail -1 gdb_output",
            caps=CAPS, nodes=3, timeout=200)
        self.assertEqual(out.splitlines(), ["gdb 0", "gdb 0", "status 0", "wrong 0, woken 1"])
        for told, nodes in ((self.work / "gdb1", [0, 1, 2]), (self.work / "gdb2", [1, 2])):
            text = told.read_text(encoding="utf-8")
            self.assertEqual(sorted(set(re.findall(r"\(node [0-9]\)", text))), [f"(node {node})" for node in nodes], text)
            self.assertEqual(text.count(" = 1234567890123\n"), 2, text)
            self.assertRegex(text, r" = \[ [IDZOUP M]+\]\n")
            for function in ("be_moved", "compute_steadily", "wait_steadily"):
                self.assertIn(f" {function} (", text)
            self.assertIn("$1 = 1\n", text)
        self.assertIn("has no threads on other nodes", (self.work / "refused").read_text(encoding="utf-8"))


    def begin(self, how=""):
        """Of a script: starts the program, waits until its threads are on both nodes; $pid is its number."""
        return (f"rm -f end; : > output; {self.program('spread_breakpoints')} {how} >> output & until read pid first second < output; do sleep 0.05; done; "
                "until krg_where --json --threads | grep -q '\"node\":1'; do sleep 0.05; done; ")

    END = "touch end; wait $!; echo status $?; tail -1 output"

    def debug(self, *commands):
        """Of a script: what gdb says of the commands is in the file told."""
        return "krg_gdb $pid -nx -batch " + " ".join(f"-ex '{command}'" for command in commands) + " > told 2>&1; echo gdb $?; "

    def told(self):
        return (self.work / "told").read_text(encoding="utf-8")

    def test_breakpoints_stop_threads_of_all_nodes(self):
        out = self.shell(self.begin("alone") + self.debug(
            "tbreak add_one if own < 2000000", "continue", "info threads", "print own / 1000000", "set var $before = own", "next", "print own - $before",
            "print number >= 0", "stepi", "finish", "print turns[0] > 0",
            "tbreak add_one if own >= 3000000", "continue", "info threads", "print own / 1000000", "set var $before = own", "next", "print own - $before",
            "finish", "set var turns[1] = 123456789", "print turns[1]", "print number = 3", "break add_one", "continue", "continue", "continue",
            "delete", "detach") + self.END, caps=CAPS, nodes=2, timeout=200)
        told = self.told()
        self.assertEqual(out.splitlines(), ["gdb 0", "status 0", "1"], told)
        self.assertEqual(re.findall(r"^\* .*\(node ([0-9])\) ", told, re.MULTILINE), ["1", "0"], told)
        values = re.findall(r"^\$[0-9]+ = (.*)$", told, re.MULTILINE)
        self.assertEqual(values, ["1", "2", "1", "1", "3", "2", "123456789"], told)
        self.assertEqual(len(re.findall(r"^Value returned is \$[0-9]+ = [0-9]+$", told, re.MULTILINE)), 2, told)
        self.assertEqual(len(re.findall(r"hit (?:Temporary b|B)reakpoint", told)), 5, told)

    # gdb says nothing by itself when it goes on.
    GOES_ON = "-ex 'echo it goes on\\n' -ex continue"
    UNTIL_IT_GOES_ON = "until grep -q 'it goes on' told; do sleep 0.05; done; sleep 0.5; "

    def test_a_program_that_runs_is_interrupted_and_left(self):
        # A shell's background commands do not get SIGINT.
        out = self.shell(f"{self.begin()} program=$!; : > told; ({self.UNTIL_IT_GOES_ON} kill -INT $(cat gdb)) & "
                         f"sh -c \"echo \\$\\$ > gdb; exec krg_gdb $pid -nx -batch {self.GOES_ON} -ex 'info threads' -ex detach\" > told 2>&1; echo gdb $?; "
                         "touch end; wait $program; echo status $?; tail -1 output", caps=CAPS, nodes=2, timeout=200)
        self.assertEqual(out.splitlines(), ["gdb 0", "status 0", "1"], self.told())
        self.assertIn("SIGINT", self.told())

    def test_a_debugger_that_is_killed_takes_its_breakpoints_along(self):
        out = self.shell(f"{self.begin()} program=$!; : > told; krg_gdb $pid -nx -batch -ex 'break add_one if own < 0' {self.GOES_ON} > told 2>&1 & gdb=$!; "
                         f"{self.UNTIL_IT_GOES_ON} kill -KILL $gdb; wait $gdb 2> /dev/null; sleep 0.3; touch end; wait $program; echo status $?; tail -1 output",
                         caps=CAPS, nodes=2, timeout=200)
        self.assertEqual(out.splitlines(), ["status 0", "1"], self.told())

    def test_the_end_of_the_program_is_told(self):
        out = self.shell(f"{self.begin()} : > told; krg_gdb $pid -nx -batch {self.GOES_ON} > told 2>&1 & gdb=$!; "
                         f"{self.UNTIL_IT_GOES_ON} touch end; wait $gdb; echo gdb $?; wait; tail -1 output", caps=CAPS, nodes=2, timeout=200)
        self.assertEqual(out.splitlines(), ["gdb 0", "1"], self.told())
        self.assertIn("exited normally", self.told())

if __name__ == "__main__":
    session_case.main()
