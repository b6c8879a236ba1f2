#!/usr/bin/env python3
"""Jobs of ours under a real Slurm, as an ordinary user: exit codes, scancel, the time limit, arrays, every
way to start, and that a job ends when its program does.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import time
import unittest

from cluster import HOME, NODES, Job, SlurmTest, alice, processes_of_alice, wait_for

# Eight children that are there at the same time, each placed on the least loaded node; they tell where.
# (slurmstepd exports HOSTNAME to batch jobs; without it bash asks the kernel.)
EIGHT_CHILDREN = 'unset HOSTNAME; for i in 1 2 3 4 5 6 7 8; do bash -c "echo \\$HOSTNAME; sleep 2" & done; wait'
SPREAD = f"krgrun --caps=+DISTANT_FORK bash -c '{EIGHT_CHILDREN}'"
# Tells how many threads it has, and checks every construct.
OPENMP_PROGRAM = pathlib.Path(os.environ["KRG_OMP_PROGRAM"])
# docs/LIMITS.md says why; krgrun's own srun gets the variable from krgrun.
SRUN = ("env", "SLURM_PMIX_FENCE=tree", "srun", "--mpi=pmix")
# A krgd that does not come up on n2.
KRGD = """#!/bin/sh
[ $(hostname) != n2 ] || { echo it is broken >&2; exit 3; }
exec /srv/kerrighed/libexec/kerrighed/krgd "$@"
"""
# An end that takes longer than this was a time-out, not an end "at once".
AT_ONCE_S = 10


class KrgrunJobs(SlurmTest):
    def assert_spread(self, output, errors):
        """Eight children ran on several nodes. Which ones goes by samples of load: the program's own node
        may get none, and on a busy machine another one too."""
        hosts = output.split()
        self.assertEqual(len(hosts), 8, output + errors)
        self.assertGreaterEqual(len(set(hosts)), 2, hosts)
        self.assertLessEqual(set(hosts), set(NODES))

    def test_batch_job_spreads_over_its_nodes(self):
        job = Job(SPREAD, "-N4")
        self.assert_ends(job, "COMPLETED", "0:0")
        self.assert_spread(job.output(), job.errors())

    def test_batch_job_on_two_nodes_uses_no_other(self):
        job = Job(SPREAD, "-N2", "-w", "n2,n3")
        self.assert_ends(job, "COMPLETED", "0:0")
        self.assertEqual(set(job.output().split()), {"n2", "n3"})

    @unittest.skipUnless(os.path.exists("/dev/userfaultfd"), "no /dev/userfaultfd")
    def test_an_openmp_programs_threads_are_on_all_nodes(self):
        job = Job(f"OMP_NUM_THREADS=4 krgrun {OPENMP_PROGRAM} 'krg_where --json'", "-N4")
        self.assert_ends(job, "COMPLETED", "0:0")
        lines = job.output().splitlines()
        processes = [p for p in json.loads("".join(lines[:-1])) if p["command"] == OPENMP_PROGRAM.name]
        self.assertEqual([sorted(t["node"] for t in p["threads"]) for p in processes], [[0, 1, 2, 3]], job.errors())

    def test_the_clusters_nodes_are_the_allocations(self):
        run = alice("salloc", "-N3", "-w", "n1,n3,n4", "krgrun", "kradm", "nodes", "status", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        nodes = json.loads(run.stdout)["nodes"]
        self.assertEqual([(n["host"], n["state"]) for n in nodes],
                         [("n1", "online"), ("n3", "online"), ("n4", "online")])

    def test_a_node_that_does_not_come_up_ends_the_start(self):
        libexec = HOME / "libexec"
        libexec.mkdir(exist_ok=True)
        for file in pathlib.Path("/srv/kerrighed/libexec/kerrighed").iterdir():
            if file.name != "krgd":
                (libexec / file.name).symlink_to(file)
        (libexec / "krgd").write_text(KRGD)
        (libexec / "krgd").chmod(0o755)
        run = alice("env", f"KRG_LIBEXEC_DIR={libexec}", "salloc", "-N3", "-w", "n1,n2,n3", "krgrun", "true", timeout=40)
        self.assertEqual(run.returncode, 125, run.stderr)
        self.assertIn("krgrun: node 1: krgd ended with status 3 before it was ready: it is broken\n", run.stderr)
        # Slurm kills the other ranks at once, and the next start takes away what is left of them.
        run = alice("salloc", "-N3", "-w", "n1,n2,n3", "krgrun", "true")
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_exit_code_is_the_programs(self):
        job = Job("exec krgrun bash -c 'exit 7'", "-N4")
        self.assert_ends(job, "FAILED", "7:0")

    def test_signal_is_told_as_the_shell_does(self):
        job = Job("exec krgrun bash -c 'kill -SEGV $$'", "-N2")
        self.assert_ends(job, "FAILED", "139:0")

    def test_salloc(self):
        run = alice("salloc", "-N4", "krgrun", "bash", "-c", "echo ran; exit 3")
        self.assertEqual((run.returncode, run.stdout), (3, "ran\n"), run.stderr)

    def test_salloc_spreads(self):
        # Standard output is a pipe here, made outside of the session by Slurm.
        run = alice("salloc", "-N4", "krgrun", "--caps=+DISTANT_FORK", "bash", "-c", EIGHT_CHILDREN)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_spread(run.stdout, run.stderr)

    def test_salloc_standard_input_and_output_are_the_callers(self):
        text = "".join(f"line {i}\n" for i in range(20_000))
        run = alice("salloc", "-N2", "krgrun", "cat", input=text)
        self.assertEqual((run.returncode, len(run.stdout)), (0, len(text)), run.stderr)
        self.assertEqual(run.stdout, text)

    def test_srun_starts_a_rank_a_node(self):
        # One krgrun on each node: they are the ranks of one cluster, and the program runs once.
        run = alice(*SRUN, "-N4", "krgrun", "bash", "-c", "echo ran; exit 5")
        self.assertEqual((run.returncode, run.stdout), (5, "ran\n"), run.stderr)

    def test_srun_spreads(self):
        # srun's streams are pipes that slurmstepd, of root, has made.
        run = alice(*SRUN, "-N4", "krgrun", "--caps=+DISTANT_FORK", "bash", "-c", EIGHT_CHILDREN)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assert_spread(run.stdout, run.stderr)

    def test_job_ends_when_its_program_does(self):
        # The program leaves a daemon behind, which must not hold the job.
        job = Job("echo start; krgrun bash -c 'setsid sleep 1000 & disown'", "-N4")
        job.wait_for_output("start")
        start = time.monotonic()
        self.assert_ends(job, "COMPLETED", "0:0")
        self.assertLess(time.monotonic() - start, AT_ONCE_S)

    def test_scancel(self):
        job = Job("exec krgrun --caps=+DISTANT_FORK bash -c 'for i in 1 2 3 4; do sleep 1000 & done; echo up; wait'",
                  "-N4")
        job.wait_for_output("up")
        alice("scancel", job.id)
        state, _ = job.wait(timeout_s=AT_ONCE_S)
        self.assertEqual(state, "CANCELLED")

    def test_scancel_reaches_the_program_as_a_signal(self):
        job = Job("exec krgrun bash -c \"trap 'echo got term; exit 0' TERM; echo up; while :; do sleep 0.1; done\"", "-N2")
        job.wait_for_output("up")
        alice("scancel", "--signal=TERM", "--full", job.id)
        job.wait_for_output("got term")
        job.wait(timeout_s=AT_ONCE_S)

    def test_time_limit(self):
        job = Job("exec krgrun bash -c 'echo up; exec sleep 1000'", "-N4")
        job.wait_for_output("up")
        job.end_in(2)
        state, _ = job.wait(timeout_s=60)
        self.assertEqual(state, "TIMEOUT")

    def test_array_tasks_are_clusters_of_their_own(self):
        # Each stays until all three have seen each other's marks on the shared disk: they run at the
        # same time, on the same nodes, and see only their own processes.
        Job("""krgrun bash -c '
            touch mark.$SLURM_ARRAY_TASK_ID
            until [ $(ls mark.* | wc -l) = 3 ]; do sleep 0.1; done
            echo $((SLURM_ARRAY_TASK_ID * 10)) $(pgrep -fc until-all-are-there) > result.$SLURM_ARRAY_TASK_ID
            ' until-all-are-there""", "--array=1-3", "-N2", "-n2", "-w", "n1,n2")
        results = [HOME / f"result.{i}" for i in (1, 2, 3)]
        wait_for(lambda: all(r.exists() and r.read_text() for r in results), "three tasks have run", 60)
        self.assertEqual([r.read_text() for r in results], ["10 1\n", "20 1\n", "30 1\n"])

    def test_two_steps_of_a_job_one_after_the_other(self):
        job = Job("krgrun echo one; krgrun echo two", "-N4")
        self.assert_ends(job, "COMPLETED", "0:0")
        self.assertEqual(job.output(), "one\ntwo\n")

    def test_nothing_is_left_when_krgrun_is_killed(self):
        job = Job("krgrun --caps=+DISTANT_FORK bash -c 'sleep 1234 & echo up; wait' & sleep 1000", "-N4")
        job.wait_for_output("up")

        def ours():
            return [pid for pid, command in processes_of_alice()
                    if any(word in command for word in ("krg", "1234"))]

        killed = [pid for pid, command in processes_of_alice() if command.split("\0")[0].endswith("krgrun")]
        self.assertTrue(killed)
        alice("kill", "-9", *map(str, killed))
        wait_for(lambda: not ours(), "krgd and the program are gone", AT_ONCE_S)
        alice("scancel", job.id)
        job.wait()


if __name__ == "__main__":
    unittest.main(verbosity=2)
