#!/usr/bin/env python3
"""The cluster of with_slurm itself, with jobs that use nothing of ours: what the other Slurm tests
take for granted, and what native jobs look like.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import shutil
import time
import unittest

from cluster import HOME, NODES, Job, SlurmTest, alice


class PlainJobs(SlurmTest):
    def test_one_task_a_node(self):
        step = alice("srun", "-N4", "hostname")
        self.assertEqual(sorted(step.stdout.split()), list(NODES), step.stderr)

    def test_mpi_over_four_nodes(self):
        program = shutil.copy(os.environ["KRG_MPI_SUM"], "/srv/bin/mpi_sum")
        step = alice("srun", "-N4", "--mpi=pmix", program)
        self.assertEqual((step.returncode, step.stdout), (0, "sum 6 of 4 ranks\n"), step.stderr)

    def test_batch_exit_code(self):
        job = Job("hostname; exit 7")
        self.assert_ends(job, "FAILED", "7:0")
        self.assertIn(job.output().strip(), NODES)

    def test_scancel(self):
        job = Job("echo up; srun sleep 1000", "-N4")
        job.wait_for_output("up")
        alice("scancel", job.id)
        # Whether the batch shell dies of the signal or exits after its srun did, is Slurm's to say.
        state, exit_code = job.wait(15)
        self.assertEqual(state, "CANCELLED", job.output() + job.errors())
        self.assertIn(exit_code, ("0:15", "1:0"))

    def test_time_limit(self):
        job = Job("echo up; exec sleep 1000")
        job.wait_for_output("up")
        job.end_in(2)
        start = time.monotonic()
        self.assert_ends(job, "TIMEOUT", "0:15")
        self.assertLess(time.monotonic() - start, 40)

    def test_array(self):
        Job("echo $((SLURM_ARRAY_TASK_ID * 10)) > array.$SLURM_ARRAY_TASK_ID", "--array=1-3")
        deadline = time.monotonic() + 20
        while len(list(HOME.glob("array.*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        self.assertEqual([(HOME / f"array.{i}").read_text() for i in (1, 2, 3)], ["10\n", "20\n", "30\n"])


if __name__ == "__main__":
    unittest.main()
