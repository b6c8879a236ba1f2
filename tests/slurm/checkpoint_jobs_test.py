#!/usr/bin/env python3
"""Jobs that Slurm tells before their time is over, which are saved then and go on in the next one.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import unittest

from cluster import HOME, Job, SlurmTest

# Counts; ends when a later job has told it to.
COUNTS = "i=0; while [ ! -e end ]; do echo $i; i=$((i + 1)); sleep 0.05; done >>count; echo counted"
SAVED = """
trap 'kill -USR1 $krgrun' USR1
krgrun --checkpoint-dir=ckpt bash work & krgrun=$!
until [ -s count ]; do sleep 0.1; done; echo up
until [ -e ckpt/v1.h5 ]; do sleep 0.1; done
kill -9 $krgrun; wait; echo saved
"""
# The signal comes this long before the end, or up to half a minute later: Slurm looks every 30 seconds.
BEFORE_THE_END_S = 75


class CheckpointJobs(SlurmTest):
    def test_a_job_is_saved_before_its_time_is_over(self):
        (HOME / "work").write_text(COUNTS)
        job = Job(SAVED, "-N2", f"--signal=B:USR1@{BEFORE_THE_END_S}")
        job.wait_for_output("up")
        job.end_in(BEFORE_THE_END_S + 5)
        self.assert_ends(job, "COMPLETED", "0:0")
        self.assertEqual(job.output(), "up\nsaved\n", job.errors())
        (HOME / "end").touch()
        again = Job("exec krgrun --restart=ckpt", "-N3")
        self.assert_ends(again, "COMPLETED", "0:0")
        # Its output is a file, which it has open again, as long as it was then.
        self.assertEqual((again.output(), job.output()), ("", "up\ncounted\n"), again.errors())
        counted = (HOME / "count").read_text().split()
        self.assertEqual(counted, [str(i) for i in range(len(counted))])


if __name__ == "__main__":
    unittest.main(verbosity=2)
