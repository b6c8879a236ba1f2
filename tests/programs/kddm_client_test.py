"""The examples that use KDDM sets (krg/shmem/client.h), on four nodes: a plain C++ program and an MPI program.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import collections
import functools
import os

import session_case
from session_case import SessionCase

LIMIT = 100_000
# The ranks are started by one mpirun and placed when they exec: they find it at 127.0.0.1, but must not believe in shared
# memory.
MPIRUN = ["mpirun", "--oversubscribe", "--mca", "btl", "self,tcp", "-n", "4"]
MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@functools.lru_cache(maxsize=None)
def collatz_steps(number):
    count = 0
    while number > 1:
        number = number // 2 if number % 2 == 0 else 3 * number + 1
        count += 1
        if number < LIMIT:
            return count + collatz_steps(number)
    return count


class KddmClientTest(SessionCase):
    def test_a_plain_program_shares_its_work_over_the_nodes(self):
        result = self.krgrun("shared_histogram", "8", str(LIMIT), check=True)
        expected = collections.Counter(collatz_steps(n) // 10 * 10 for n in range(1, LIMIT))
        *bins, nodes = [line.split() for line in result.stdout.splitlines()]
        self.assertEqual({int(first): int(count) for first, count in bins}, dict(expected))
        self.assertGreater(int(nodes[1]), 1, "nodes that have workers")

    def test_an_mpi_program_shares_rows_over_the_nodes(self):
        result = self.krgrun(*MPIRUN, self.build / "examples/mpi_shared_rows", "100", check=True, env=MPI_ENVIRONMENT)
        words = result.stdout.split()
        found = dict(zip(words[::2], map(int, words[1::2])))
        self.assertEqual((found["ranks"], found["iterations"], found["same"]), (4, 100, 1), result.stdout)
        self.assertGreater(found["nodes"], 1)

    def test_outside_of_a_session_it_says_so(self):
        result = self.run_program(["shared_histogram"])
        self.assertEqual(result.returncode, 1)
        self.assertIn("does not run in a session", result.stderr)


if __name__ == "__main__":
    os.environ.pop("KRG_CONTROL", None)
    session_case.main()
