"""krgrun as seen by its caller: exit codes, streams, environment, signals, terminal.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pty
import select
import signal
import subprocess
import time
import unittest

import session_case
from launcher_case import LauncherCase, wait_until


class Krgrun(LauncherCase):
    def run_one(self, *arguments, **options):
        return self.krgrun(*arguments, nodes=1, caps=None, **options)

    def test_exit_codes(self):
        (self.work / "not-executable").write_text("")
        for expected, arguments in {
            0: ["true"], 7: ["sh", "-c", "exit 7"], 128 + 15: ["sh", "-c", "kill -TERM $$"],
            124: ["--timeout", "1", "sleep", "100"], 125: ["--no-such-option", "true"],
            126: [str(self.work / "not-executable")], 127: ["no-such-program"],
        }.items():
            with self.subTest(arguments):
                result = self.run_one(*arguments)
                self.assertEqual(result.returncode, expected, result.stderr)
                self.assertLessEqual(len(result.stderr.splitlines()), 1, "one line for each error")
        self.assert_nothing_left()

    def test_environment_directory_mask_and_limits_are_kept(self):
        script = 'pwd; umask; ulimit -n; ulimit -c; echo "$SOME $KRG_NODES $KRG_TASK_ID"; [ -S "$KRG_CONTROL" ] && echo socket'
        result = self.run_program(["sh", "-c", "umask 027; ulimit -n 123; ulimit -c 0; SOME=thing exec krgrun sh -c '%s'" % script])
        self.assertEqual(result.stdout.splitlines(), [str(self.work), "0027", "123", "0", "thing 1 0", "socket"], result.stderr)

    def test_export_and_chdir(self):
        result = self.run_one("--export", "PATH,ONE=1", "-D", "/usr", "sh", "-c", "pwd; echo $ONE$HOME$SECRET", env={"SECRET": "x"})
        self.assertEqual(result.stdout, "/usr\n1\n", result.stderr)

    def test_openmp_programs_get_the_runtime_that_was_asked_for(self):
        # Only libkrgomp displays how long it looks before it sleeps.
        program, show = str(self.build / "test-bin/omp_foreign"), {"OMP_DISPLAY_ENV": "verbose", "OMP_NUM_THREADS": "3"}
        for option, ours in {"--omp=native": False, "--omp=krg": True, "-l": False}.items():
            with self.subTest(option):
                result = self.run_one(option, "sh", "-c", f"exec {program}", env=show)
                self.assertIn("3 threads", result.stdout, result.stderr)
                self.assertEqual("KRG_SPIN_NS" in result.stderr, ours)
        result = self.run_one(program, env=show)
        self.assertNotIn("KRG_SPIN_NS", result.stderr, "one node: nothing to spread over")
        for options, command, ours in (([], [program], True), (["--omp=native"], [program], False), ([], ["sh", "-c", program], False)):
            with self.subTest("several nodes", options=options, command=command):
                result = self.krgrun("-q", *options, *command, caps=None, env=show)
                self.assertIn("3 threads", result.stdout, result.stderr)
                self.assertEqual("KRG_SPIN_NS" in result.stderr, ours)
        result = self.krgrun("-q", "--omp=krg", "bash", "-c", f"{program} & {program}; wait", caps=None,
                             env={"OMP_NUM_THREADS": "4"})
        self.assertEqual((result.stdout, result.stderr), ("4 threads\n" * 2, ""))

    def test_streams_are_the_callers(self):
        text = "".join(f"line {i}\n" for i in range(20000))
        result = self.run_one("sh", "-c", "cat; echo end >&2", input=text)
        self.assertEqual((result.stdout, result.stderr), (text, "end\n"))

    def test_copies_labels_and_files(self):
        result = self.run_one("-n3", "-l", "sh", "-c", "echo out $KRG_TASK_ID; echo err $KRG_TASK_ID >&2")
        self.assertEqual(sorted(result.stdout.splitlines()), [f"{i}: out {i}" for i in range(3)])
        self.assertEqual(sorted(result.stderr.splitlines()), [f"{i}: err {i}" for i in range(3)])
        result = self.run_one("-n2", "-o", "out-%t", "-e", "err-%2t", "sh", "-c", "echo $KRG_TASK_ID; echo e >&2")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.work / "out-1").read_text(), "1\n")
        self.assertEqual((self.work / "err-01").read_text(), "e\n")
        self.assertEqual(self.run_one("-i", "out-1", "cat").stdout, "1\n")

    def test_a_signal_to_krgrun_reaches_the_program(self):
        script = "trap 'echo got; exit 9' USR1; echo up; while :; do sleep 0.05; done"
        process = self.start("krgrun", "sh", "-c", script)
        self.assertEqual(process.stdout.readline(), "up\n")
        os.kill(self.pids_of("krgrun")[0], signal.SIGUSR1)
        self.assertEqual((process.stdout.readline(), process.wait(10)), ("got\n", 9))
        self.assert_nothing_left()

    def converse(self, master, steps, limit_s=15):
        """Waits for each text on the terminal, then types the answer."""
        seen = ""
        for expected, answer in steps:
            end = time.monotonic() + limit_s
            while expected not in seen:
                if not select.select([master], [], [], max(end - time.monotonic(), 0))[0]:
                    self.fail(f"no {expected!r} after {seen!r}")
                try:
                    seen += os.read(master, 65536).decode(errors="replace")
                except OSError:
                    self.fail(f"the terminal closed before {expected!r}: {seen!r}")
            seen = seen.split(expected, 1)[1]
            # A person's pause: ^Z between a shell's vfork and its child's exec stops the child alone, also natively, and fg
            # says what it continues before it does.
            time.sleep(0.4)
            os.write(master, answer.encode())
        return seen

    def on_terminal(self, *arguments):
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(self.work)
            words = self.command(arguments)
            os.execvpe(words[0], words, self.environment(PS1="prompt> ", TERM="dumb"))
        self.addCleanup(os.close, master)
        return pid, master

    def end_of(self, pid):
        """Its exit code; None when it does not end."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.02)
        return None

    def test_ctrl_c_on_the_callers_terminal(self):
        pid, master = self.on_terminal("krgrun", "sh", "-c", "trap 'echo caught; exit 4' INT; echo up; while :; do sleep 0.05; done")
        self.converse(master, [("up", "\x03"), ("caught", "")])
        self.assertEqual(self.end_of(pid), 4)

    def test_job_control_of_an_interactive_shell_around_krgrun(self):
        pid, master = self.on_terminal("bash", "--norc", "-i")
        self.converse(master, [("prompt> ", "krgrun sh -c 'echo u''p; sleep 1000'\n"), ("up", "\x1a"), ("Stopped", "\n"),
                               ("prompt> ", "fg\n"), ("sleep 1000", "\x03"), ("prompt> ", "echo code $?\n"),
                               ("code 130", "exit 3\n")])
        self.assertEqual(self.end_of(pid), 3)

    def test_interactive_shell_in_krgrun(self):
        for flags in ([], ["--pty"]):
            with self.subTest(flags):
                pid, master = self.on_terminal("krgrun", *flags, "bash", "--norc", "-i")
                self.converse(master, [("prompt> ", "sh -c 'echo u''p; sleep 1000'\n"), ("up", "\x1a"), ("Stopped", "bg\n"),
                                       ("prompt> ", "kill %1; wait %1; echo ended $?\n"), ("ended 143", "stty size\n"),
                                       ("0 0", "exit 6\n")])
                self.assertEqual(self.end_of(pid), 6)

    def test_nodes_have_processors_of_their_own(self):
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            self.skipTest("lacks a second processor")
        job = self.start("krgrun", "-N2", "-c1", "--caps=+DISTANT_FORK", "bash", "-c",
                         "grep -c ^processor /proc/cpuinfo; for i in 1 2 3 4; do yes >/dev/null & done; read",
                         stdin=subprocess.PIPE)
        self.assertEqual(job.stdout.readline(), "2\n")
        self.assertTrue(wait_until(lambda: len(self.pids_of("yes")) == 4), self.processes())
        bound = {frozenset(os.sched_getaffinity(pid)) for pid in self.pids_of("yes")}
        self.assertEqual(bound, {frozenset(allowed[:1]), frozenset(allowed[1:2])})
        job.communicate("\n")

    def test_more_processors_than_there_are_is_refused(self):
        count = len(os.sched_getaffinity(0))
        result = self.run_program(["krgrun", "-N2", f"-c{count}", "true"])
        self.assertEqual(result.returncode, 125)
        self.assertIn(f"need {2 * count}, there are {count}", result.stderr)


if __name__ == "__main__":
    session_case.main()
