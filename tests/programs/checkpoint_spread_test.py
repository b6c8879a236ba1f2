"""Processes whose threads run on several nodes (--omp=krg, DISTANT_THREAD) are saved at random instants, killed, and go on, on as many
nodes or on others.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import signal
import time

import session_case
from checkpoint_case import CheckpointCase


class CheckpointSpreadTest(CheckpointCase):
    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")
        super().setUp()

    def program(self, name="checkpoint_openmp"):
        return self.build / "test-bin/programs" / name

    def begin(self, *command, nodes=2, threads=4, options=("--omp=krg",)):
        process = self.start("-q", "-N", str(nodes), *options, f"--checkpoint-dir={self.work / 'ckpt'}", "sh", "-c",
                             f'export OMP_NUM_THREADS={threads}; exec "$@" >output 2>&1', "sh", *map(str, command))
        while not (self.work / "ready").exists():
            self.assertIsNone(process.poll(), self.errors())
            time.sleep(0.02)
        return process

    def go_on(self, nodes, *options):
        return self.start("-q", "-N", str(nodes), *options, f"--checkpoint-dir={self.work / 'ckpt'}", f"--restart={self.work / 'ckpt'}")

    def finish(self, process, output="4 threads, as it should be\n"):
        (self.work / "end").touch()
        self.assertEqual(process.wait(timeout=120), 0, self.errors() + (self.work / "output").read_text())
        self.assertEqual((self.work / "output").read_text(), output)

    def test_openmp_goes_on_on_any_number_of_nodes(self):
        process = self.begin(self.program(), nodes=2)
        for nodes in (2, 1, 4, 2):
            time.sleep(self.random.uniform(0.1, 0.8))
            self.save_and_kill(process)
            process = self.go_on(nodes)
        self.finish(process)


if __name__ == "__main__":
    session_case.main()
