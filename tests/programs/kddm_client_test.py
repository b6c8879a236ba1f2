"""The examples that use KDDM sets (krg/shmem/client.h), on four nodes: a plain C++ program and an MPI program; an MPI program by
itself.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import collections
import functools
import os
import subprocess

import session_case
from session_case import BUSY, SessionCase

LIMIT = 100_000
MPIRUN = ["mpirun", "--oversubscribe", "-n", "4"]
MPI_ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}

# Messages of 4 MiB, which ranks of one machine read out of each other's memory.
MPI_SUMS = r"""
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>
static int mine[1 << 20], sum[1 << 20];
int main(int argc, char** argv) {
  int rank, ranks, wrong = 0, count = 1 << 20;
  char host[64] = "";
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  for (int i = 0; i < count; ++i) mine[i] = i * rank;
  for (int turn = 0; turn < 3; ++turn) MPI_Allreduce(mine, sum, count, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  for (int i = 0; i < count; ++i) wrong += sum[i] != i * (ranks * (ranks - 1) / 2);
  gethostname(host, sizeof host);
  printf("%s %d\n", host, wrong);
  return MPI_Finalize();
}
"""


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

    def test_an_mpi_program_needs_no_options(self):
        (self.work / "sums.c").write_text(MPI_SUMS, encoding="ascii")
        subprocess.run(["mpicc", "-O1", "-o", "sums", "sums.c"], cwd=self.work, check=True)
        result = self.krgrun("bash", "-c", f"{BUSY}; exec {' '.join(MPIRUN)} ./sums", check=True, env=MPI_ENVIRONMENT)
        words = result.stdout.split()
        self.assertEqual(words[1::2], ["0"] * 4, result.stdout)
        self.assertGreater(len(set(words[::2])), 1)
        self.assertNotIn("Read -1", result.stderr)

    def test_processes_meet_at_a_barrier(self):
        program = self.build / "test-bin/programs/shared_barriers"
        for nodes, members in ((2, 2), (4, 7)):
            result = self.krgrun("bash", "-c", f"{BUSY}; {program} {members} 100", nodes=nodes, check=True)
            lines = [line.split() for line in result.stdout.splitlines()]
            self.assertEqual(sorted(line[1] for line in lines), [str(i) for i in range(members)], result.stdout)
            self.assertEqual({line[5] for line in lines}, {"100"}, result.stdout)
            if members > nodes:
                self.assertGreater(len({line[3] for line in lines}), 1, result.stdout)

    def test_ranges_that_overlap_are_taken_whole_and_by_everybody(self):
        program = self.build / "test-bin/programs/shared_ranges"
        for nodes, members in ((2, 2), (4, 6)):
            result = self.krgrun("bash", "-c", f"{BUSY}; {program} {members} 40", nodes=nodes, check=True)
            lines = [line.split() for line in result.stdout.splitlines()]
            self.assertEqual(sorted(line[1] for line in lines), [str(i) for i in range(members)], result.stdout)
            self.assertEqual({(line[5], line[7]) for line in lines}, {("160", "0")}, result.stdout)
            self.assertGreater(len({line[3] for line in lines}), 1, result.stdout)

    def test_outside_of_a_session_it_says_so(self):
        result = self.run_program(["shared_histogram"])
        self.assertEqual(result.returncode, 1)
        self.assertIn("does not run in a session", result.stderr)


if __name__ == "__main__":
    os.environ.pop("KRG_CONTROL", None)
    session_case.main()
