"""kradm cluster: a cluster that lives on its own, and jobs that come and go on it.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import signal
import subprocess

import session_case
from launcher_case import LauncherCase, wait_until


class Cluster(LauncherCase):
    def kradm(self, *arguments, **options):
        return self.run_program(["kradm", "cluster", *arguments], **options)

    def setUp(self):
        super().setUp()
        self.kradm("start", "-N", "2", check=True)

    def status(self):
        return json.loads(self.kradm("status", "--json", check=True).stdout)

    def test_jobs_share_it(self):
        status = self.status()
        self.assertEqual((status["nodes"], status["jobs"], status["failed"]), (2, [], []))
        objects = json.loads(self.run_program(["kradm", "kddm", "--json"], check=True).stdout)["nodes"]
        self.assertEqual([node["node"] for node in objects], [0, 1])
        table = self.run_program(["kradm", "kddm"], check=True).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in table[:3]], ["NODE", "0", "1"])
        first = self.start("krgrun", "sh", "-c", "echo $$; exec sleep 1000")
        pid = first.stdout.readline().strip()
        seen = self.run_program(["krgrun", "ps", "-o", "args=", "-p", pid])
        self.assertEqual(seen.stdout, "sleep 1000\n", seen.stderr)
        self.assertEqual(len(self.status()["jobs"]), 1)
        self.assertEqual(self.run_program(["krgrun", "-N3", "true"]).returncode, 125)
        self.kradm("stop", check=True)
        self.assertNotEqual(first.wait(10), 0)
        self.assert_nothing_left()

    def test_a_jobs_end_ends_its_daemons_and_no_others(self):
        other = self.start("krgrun", "sh", "-c", "echo up; exec sleep 1000")
        other.stdout.readline()
        leaver = self.run_program(["krgrun", "sh", "-c", "setsid sleep 999 & (setsid sleep 999 &); exit 3"])
        self.assertEqual(leaver.returncode, 3, leaver.stderr)
        self.assertEqual(len(self.pids_of("sleep")), 1)
        self.assertIsNone(other.poll())
        self.kradm("stop", check=True)

    def test_a_killed_krgrun_ends_its_job_only(self):
        process = self.start("krgrun", "sh", "-c", "trap '' TERM HUP; setsid sleep 1000 & echo up; sleep 1000")
        process.stdout.readline()
        os.kill(self.pids_of("krgrun")[0], signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not self.pids_of("sleep")), self.processes())
        self.assertTrue(wait_until(lambda: self.status()["jobs"] == []))
        self.kradm("stop", check=True)
        self.assert_nothing_left()

    def nodes(self, *arguments, **options):
        return self.run_program(["kradm", "nodes", *arguments], **options)

    def states(self):
        nodes = json.loads(self.nodes("status", "--json", check=True).stdout)["nodes"]
        return [node["state"] for node in nodes]

    def test_a_node_leaves_and_comes_back(self):
        # Of four busy programs some stay and some go.
        spin = "bash -c 'echo $HOSTNAME; while :; do :; done' &"
        job = self.start("krgrun", "--caps=+DISTANT_FORK", "bash", "-c",
                         f"{spin} {spin} {spin} {spin} read; kill %1 %2 %3 %4; wait", stdin=subprocess.PIPE)
        self.assertIn("n1\n", [job.stdout.readline() for _ in range(4)])
        late = self.nodes("del", "-n1", "--timeout", "0.5")
        self.assertEqual(late.returncode, 1)
        self.assertRegex(late.stderr, "[1-4] process(es)? on node 1")
        self.assertEqual(self.states(), ["online", "leaving"])
        # What runs there runs on; nothing new starts there.
        hosts = self.run_program(["krgrun", "--caps=+DISTANT_FORK", "bash", "-c",
                                  f"for i in 1 2 3 4; do {spin} done; sleep 0.5; kill %1 %2 %3 %4; wait"]).stdout
        self.assertEqual(hosts.split(), ["n0"] * 4)
        leaving = self.start("kradm", "nodes", "del", "-n", "1:1")
        self.assertRegex(leaving.stderr.readline(), "waiting for the end of [1-4] process(es)? on node 1")
        self.assertIsNone(leaving.poll())
        job.communicate("\n")
        self.assertEqual(leaving.wait(10), 0)
        self.assertEqual(self.states(), ["online", "present"])
        self.nodes("add", "-a", check=True)
        self.assertEqual(self.states(), ["online", "online"])
        hosts = self.run_program(["krgrun", "--caps=+DISTANT_FORK", "bash", "-c",
                                  f"for i in 1 2 3 4; do {spin} done; sleep 0.5; kill %1 %2 %3 %4; wait"]).stdout
        self.assertIn("n1", hosts.split())

    def test_node_0_stays_and_nodes_that_are_not_there_are_refused(self):
        for arguments in (("del", "-n", "0"), ("del", "-t", "0"), ("del", "-c", "2"), ("add", "-n", "2"), ("add", "-c", "1")):
            self.assertEqual(self.nodes(*arguments).returncode, 1, arguments)
        self.assertEqual(self.states(), ["online", "online"])
        self.nodes("del", "-t1", check=True)
        self.assertEqual(self.states(), ["online", "present"])

    def test_a_killed_host_leaves_nothing_after_the_next_start(self):
        for pid in self.pids_of("krg_host"):
            os.kill(pid, signal.SIGKILL)
        self.assertTrue(wait_until(lambda: not self.processes()))
        self.assertEqual(self.kradm("status").returncode, 1)
        self.assert_nothing_left()


if __name__ == "__main__":
    session_case.main()
