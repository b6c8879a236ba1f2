"""Explicit tasks of OpenMP teams on several nodes (krgrun -N ... --omp=krg): members of all nodes run them, every construct gives what it gives serially.

environment: KRG_BUILD_DIR, KRG_TEST_AS; tests/programs in PYTHONPATH
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os

import session_case
from session_case import SessionCase

SIZES = [(nodes, threads) for nodes in (1, 2, 4) for threads in (1, 2, 4, 8)]


class SpreadTasksTest(SessionCase):
    def setUp(self):
        if self.as_user and not (self.userfaultfd_minor() if os.geteuid() == 0
                                 else os.access("/dev/userfaultfd", os.R_OK | os.W_OK)):
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def run_omp(self, program, *options, nodes, threads, **env):
        return self.run_program(["krgrun", "-N", str(nodes), "-q", "--omp=krg", *options, self.build / "test-bin" / program],
                                timeout=170, env={"OMP_NUM_THREADS": str(threads), **env})

    def test_all_members_run_tasks_at_the_same_time(self):
        for nodes, threads in SIZES:
            with self.subTest(nodes=nodes, threads=threads):
                done = self.run_omp("omp_together", nodes=nodes, threads=threads)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{threads} threads\n", ""))

    def test_a_cancelled_group_ends_on_all_nodes(self):
        done = self.run_omp("omp_together", nodes=2, threads=4, OMP_CANCELLATION="true", OMP_MAX_TASK_PRIORITY="9")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "4 threads\n", ""))

    def test_constructs(self):
        for nodes, threads in ((2, 1), (2, 2), (2, 4), (4, 4), (4, 8)):
            with self.subTest(nodes=nodes, threads=threads):
                done = self.run_omp("omp_tasks", nodes=nodes, threads=threads, OMP_CANCELLATION="true")
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_data_goes_along_dependences(self):
        for nodes, threads in ((1, 2), (2, 2), (2, 8), (4, 4)):
            for options in ([], ["--multiple-writers"]):
                with self.subTest(nodes=nodes, threads=threads, options=options):
                    done = self.run_omp("omp_wavefront", *options, nodes=nodes, threads=threads)
                    self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{threads} threads\n", ""))


if __name__ == "__main__":
    session_case.main()
