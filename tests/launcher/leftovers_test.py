"""Nothing is left behind, whatever ends first: processes, mounts, sockets, networks, shared memory.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import os
import pathlib
import re
import signal
import unittest

import session_case
from launcher_case import LauncherCase, wait_until

# Daemons and grandchildren that try to outlive the job.
STUBBORN = "trap '' TERM HUP; setsid sleep 1000 & (sleep 1000 &) ; echo up; sleep 1000"


class Leftovers(LauncherCase):
    def start_stubborn(self, nodes):
        process = self.start("krgrun", "-N", str(nodes), "sh", "-c", STUBBORN)
        self.assertEqual(process.stdout.readline(), "up\n", process.poll())
        return process

    @staticmethod
    def program_of(krgrun):
        """The job's one task: the only child of krgrun that is not part of the cluster."""
        children = pathlib.Path(f"/proc/{krgrun.pid}/task/{krgrun.pid}/children").read_text(encoding="ascii").split()
        return next(int(pid) for pid in children
                    if pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() != "krg_host")

    def kill_each(self, name):
        pids = self.pids_of(name)
        self.assertTrue(pids, f"no {name} among {self.processes()}")
        return pids

    def test_after_exit(self):
        result = self.krgrun("sh", "-c", "setsid sleep 1000 & (sleep 1000 &); exit 5", nodes=2, caps=None)
        self.assertEqual(result.returncode, 5, result.stderr)
        self.assert_nothing_left()

    def test_krgrun_killed(self):
        process = self.start_stubborn(2)
        os.kill(self.kill_each("krgrun")[0], signal.SIGKILL)
        self.assert_nothing_left()
        self.assertEqual(process.wait(10), -signal.SIGKILL)

    def test_krg_host_killed(self):
        process = self.start_stubborn(2)
        for pid in self.kill_each("krg_host"):
            os.kill(pid, signal.SIGKILL)
            break
        self.assertEqual(process.wait(15), 122)
        self.assert_nothing_left()

    def test_program_killed(self):
        process = self.start_stubborn(2)
        os.kill(self.program_of(process), signal.SIGKILL)
        _, errors = process.communicate(timeout=15)
        self.assertEqual(process.returncode, 128 + signal.SIGKILL, errors)
        self.assert_nothing_left()

    def node_of_krgd(self, pid):
        """The node that a krgd is: its network address ends in node + 1."""
        with open(f"/proc/{pid}/net/fib_trie", encoding="ascii") as routes:
            text = routes.read()
        return next(n for n in range(2) if f"|-- 198.18.0.{n + 1}\n" in text)

    def krgd_of(self, node):
        return next(pid for pid in self.kill_each("krgd") if self.node_of_krgd(pid) == node)

    def test_krgd_of_node_0_killed(self):
        process = self.start_stubborn(2)
        os.kill(self.krgd_of(node=0), signal.SIGKILL)
        self.assertEqual(process.wait(15), 122)
        self.assert_nothing_left()

    def test_a_krgd_that_crashes_says_where(self):
        process = self.start_stubborn(2)
        os.kill(self.krgd_of(node=0), signal.SIGSEGV)
        self.assertEqual(process.wait(15), 122)
        told = process.stderr.read()
        self.assertIn("node 0 has failed: krgd crashed: Segmentation fault, in the calls\n", told)
        self.assertRegex(told, r"(?m)^[^ ]*krgd\(.*\+0x[0-9a-f]+\)")
        self.assert_nothing_left()
        process = self.start_stubborn(2)
        os.kill(self.krgd_of(node=1), signal.SIGBUS)
        self.assertIn("node 1 has failed; its processes are lost: krgd crashed: Bus error", process.stderr.readline())
        os.kill(self.program_of(process), signal.SIGKILL)
        self.assertEqual(process.wait(15), 128 + signal.SIGKILL)
        self.assert_nothing_left()

    @staticmethod
    def computes_under(pid, name):
        """Whether a child of that name has a thread that runs."""
        for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split():
            with contextlib.suppress(OSError):
                for thread in pathlib.Path(f"/proc/{child}/task").iterdir():
                    _, comm, state = re.split(r"[()]", (thread / "stat").read_text(encoding="utf-8"))
                    if comm == name and state.split()[0] == "R":
                        return True
        return False

    def test_krgd_with_threads_of_a_process_killed(self):
        program = self.build / "test-bin/programs/spread"
        process = self.start("krgrun", "-N", "2", "--caps=+DISTANT_THREAD", program, "spin")
        if not process.stdout.readline() and self.as_user:
            self.skipTest(process.stderr.read())
        krgd = self.krgd_of(node=1)
        self.assertTrue(wait_until(lambda: self.computes_under(krgd, "spread")), "its second thread is elsewhere")
        os.kill(krgd, signal.SIGKILL)
        self.assertEqual(process.wait(15), 128 + signal.SIGKILL)
        self.assertIn("node 1 has failed", process.stderr.read())
        self.assert_nothing_left()

    def test_krgd_of_another_node_killed(self):
        process = self.start_stubborn(2)
        os.kill(self.krgd_of(node=1), signal.SIGKILL)
        self.assertIn("node 1 has failed", process.stderr.readline())
        self.assertIsNone(process.poll(), "the job goes on without a node that it does not need")
        os.kill(self.program_of(process), signal.SIGKILL)
        self.assertEqual(process.wait(15), 128 + signal.SIGKILL)
        self.assert_nothing_left()

    def test_mpirun_killed_during_the_boot(self):
        process = self.start("krgrun", "-N", "2", "true")
        pids = wait_until(lambda: self.pids_of("mpirun"))
        self.assertTrue(pids)
        os.kill(pids[0], signal.SIGKILL)
        self.assertEqual(process.wait(20), 125)
        self.assert_nothing_left()

    def test_krgd_boot_killed_during_the_boot(self):
        process = self.start("krgrun", "-N", "2", "true")
        pids = wait_until(lambda: self.pids_of("krgd_boot"))
        self.assertTrue(pids)
        os.kill(pids[0], signal.SIGKILL)
        self.assertEqual(process.wait(20), 125)
        self.assert_nothing_left()

    def test_krgrun_killed_during_the_boot(self):
        self.start("krgrun", "-N", "2", "true")
        self.assertTrue(wait_until(lambda: self.pids_of("krgd_boot")))
        os.kill(self.kill_each("krgrun")[0], signal.SIGKILL)
        self.assert_nothing_left()


if __name__ == "__main__":
    session_case.main()
