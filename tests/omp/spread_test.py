"""OpenMP programs whose teams are on several nodes (krgrun -N ... --omp=krg): every construct gives what it gives serially.

environment: KRG_BUILD_DIR, KRG_TEST_AS; tests/programs in PYTHONPATH
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import time

import session_case
from session_case import SessionCase

ENOUGH_TICKS = 20


class SpreadTeamsTest(SessionCase):
    def setUp(self):
        if self.as_user and not (self.userfaultfd_minor() if os.geteuid() == 0
                                 else os.access("/dev/userfaultfd", os.R_OK | os.W_OK)):
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def run_omp(self, program, *arguments, nodes, threads, **env):
        return self.run_program(["krgrun", "-N", str(nodes), "-q", "--omp=krg", self.build / "test-bin" / program, *arguments],
                                timeout=60, env={"OMP_NUM_THREADS": str(threads), **env})

    def test_constructs_over_nodes(self):
        for nodes, threads, env in ((1, 4, {}), (2, 2, {}), (2, 8, {}), (4, 4, {}), (2, 3, {"OMP_CANCELLATION": "true"}),
                                    (4, 8, {"OMP_CANCELLATION": "true", "OMP_SCHEDULE": "guided,4"})):
            with self.subTest(nodes=nodes, threads=threads, **env):
                where = self.work / f"where.{nodes}.{threads}"
                done = self.run_omp("omp_nodes", f"krg_where --json > {where}", nodes=nodes, threads=threads, **env)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{threads} threads\n", ""))
                places = [thread["node"] for process in json.loads(where.read_text(encoding="ascii"))
                          if process["command"] == "omp_nodes" for thread in process.get("threads", [])]
                per_node = [places.count(node) for node in range(nodes)] if nodes > 1 else [threads]
                self.assertEqual(sum(per_node), threads, places)
                self.assertLessEqual(max(per_node) - min(per_node), 1, places)

    def test_each_program_of_constructs_on_each_number_of_nodes(self):
        """What constructs_test.py runs on one node, with each number of threads."""
        if self.as_user:
            self.skipTest("constructs are the same for each user")
        programs = ["nodes", "loops", "regions", "tasks", "objects", "constructs"]
        # Nested regions, whose threads come and go, take long over nodes: with 8 threads half a minute.
        for nodes, most_nested in ((1, 8), (2, 2), (4, 1)):
            runs = [f"OMP_NUM_THREADS={threads} omp_{name}" for name in programs for threads in (1, 2, 4, 8)
                    if name != "regions" or threads <= most_nested]
            script = "\n".join(f"env {run} >/dev/null || echo {run}: status $?" for run in runs)
            with self.subTest(nodes=nodes):
                done = self.run_program(["krgrun", "-N", str(nodes), "-q", "--omp=krg", "bash", "-c", f"PATH={self.build}/test-bin:$PATH\n{script}"],
                                        timeout=280, env={"OMP_CANCELLATION": "true", "OMP_MAX_TASK_PRIORITY": "100"})
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_threads_are_as_many_as_the_nodes_have_processors(self):
        alone = self.run_program([self.build / "test-bin/omp_nodes"], check=True)
        spread = self.run_program(["krgrun", "-N", "2", "-q", self.build / "test-bin/omp_nodes"], timeout=60)
        self.assertEqual((spread.returncode, spread.stderr), (0, ""))
        self.assertEqual(int(spread.stdout.split()[0]), 2 * int(alone.stdout.split()[0]))

    def test_nothing_is_said_where_all_is_well(self):
        done = self.run_program(["krgrun", "-N", "2", "--omp=krg", "true"])
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def handed_round(self, option, watch):
        (self.work / "stop").unlink(missing_ok=True)
        where = "krg_where --threads $MADE_BY | awk '/ thread$/ {print $2}' | sort | uniq -c | xargs"
        (self.work / "watch").write_text(f"where() {{ {where}; }}\n{watch}\nwhere >where; touch stop\n", encoding="ascii")
        done = self.run_program(["krgrun", "-N", "2", *option, self.build / "test-bin/omp_handing", "MADE_BY=$PPID bash watch &"],
                                timeout=100, env={"OMP_NUM_THREADS": "4"})
        self.assertEqual((done.returncode, done.stdout), (0, "4 threads\n"), done.stderr)
        return (self.work / "where").read_text(encoding="ascii").split(), done.stderr

    def test_threads_for_which_several_nodes_do_not_pay_come_home(self):
        at_home = 'until [ "$(where)" = "4 0" ] && sleep 0.5 && [ "$(where)" = "4 0" ]; do sleep 0.2; done'
        for runtime in ([], ["--omp=native", "--caps=+DISTANT_THREAD"]):
            with self.subTest(runtime=runtime):
                places, told = self.handed_round(runtime, at_home)
                self.assertEqual(places, ["4", "0"])
                self.assertRegex(told, r"^krgrun: omp_handing \(pid \d+\): its threads waited for pages .* came home after [0-9.]+ s .*\n$")

    def test_threads_stay_on_their_nodes_where_that_is_asked_for(self):
        spread = 'until [ "$(where)" = "2 0 2 1" ]; do sleep 0.2; done; sleep 3'
        for option in ("--omp=krg", "--threads=stay"):
            with self.subTest(option=option):
                self.assertEqual(self.handed_round([option], spread), (["2", "0", "2", "1"], ""))

    def test_threads_that_look_for_each_others_words_have_short_turns_at_home(self):
        """Beside natively, on one processor, where each turn takes until the scheduler's next tick, but on a machine with much to do sometimes less."""
        looking = self.build / "test-bin/omp_looking"
        home = self.work / "home"
        self.addCleanup(home.unlink, missing_ok=True)
        home.touch()
        processor = min(os.sched_getaffinity(0))
        alone = self.run_program(["taskset", "-c", str(processor), looking, "true", "1e9"], env={"OMP_NUM_THREADS": "2"}, check=True)
        native = float(alone.stdout.split()[2])
        home.unlink()
        where = "krg_where --threads $MADE_BY | awk '/ thread$/ {print $2}' | sort | uniq -c | xargs"
        (self.work / "watch").write_text(f'until [ "$({where})" = "2 0" ] && sleep 0.5 && [ "$({where})" = "2 0" ]; do sleep 0.2; done; touch home\n',
                                         encoding="ascii")
        done = self.run_program(["krgrun", "-N", "2", "-c", "1", "-q", looking, "MADE_BY=$PPID bash watch &",
                                 str(max(native / 4, 1000))],
                                timeout=100, env={"OMP_NUM_THREADS": "2"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"^2 threads, [0-9.]+ us\n$", f"natively {native} us")

    def test_native_threads_stay(self):
        where = self.work / "where.native"
        done = self.run_program(["krgrun", "-N", "2", "--omp=native", self.build / "test-bin/omp_nodes", f"krg_where --json > {where}"],
                                env={"OMP_NUM_THREADS": "2"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertFalse([p for p in json.loads(where.read_text(encoding="ascii")) if "threads" in p])

    def test_parallel_regions_are_told_what_they_waited_for(self):
        done = self.run_program(["krgrun", "-N", "2", "-q", "--omp=krg", "--stats=json", self.build / "test-bin/omp_nodes", "true"],
                                timeout=60, env={"OMP_NUM_THREADS": "2"})
        self.assertEqual(done.returncode, 0, done.stderr)
        (process,) = json.loads(done.stderr.splitlines()[-1])
        parts = [part for part in process["parallel"] if part["region"]["name"]]
        for part in parts:
            self.assertRegex(part["region"]["name"], r"\._omp_fn\.\d+ of omp_nodes$")
            self.assertGreater(part["begun"], 0, part)
        self.assertTrue(any(part["faults"] > 0 and part["fault_ms"] > 0 for part in parts), parts)
        self.assertTrue(any(part["team_calls"] > 2 and part["team_ms"] > 0 for part in parts), parts)
        behind = [part["barrier"]["name"] for part in parts if part["barrier"]["name"]]
        self.assertTrue(any(name.endswith(" of omp_nodes") for name in behind), behind)
        # A region that ends in a barrier jumps there: it seems to come from who called the region.
        self.assertTrue(all(name.endswith((" of omp_nodes", " of libgomp.so.1")) for name in behind), behind)

    def test_teams_of_hundreds_of_threads(self):
        """What they waited for is told in an answer of krgd's, which is of limited length."""
        done = self.run_program(["krgrun", "-N", "2", "-q", "--omp=krg", "--stats=json", self.build / "test-bin/omp_crowd", "600"], timeout=200)
        self.assertEqual((done.returncode, done.stdout), (0, "600 threads\n"), done.stderr)
        (process,) = json.loads(done.stderr.splitlines()[-1])
        told = process["threads"]
        self.assertEqual(len([thread for thread in told if "tid" in thread]) + told[-1]["count"], 600)
        self.assertGreater(told[-1]["team_calls"], 0)

    def test_new_threads_do_not_wait_for_the_memory_that_the_ones_before_have_got(self):
        threads = 64
        done = self.run_program(["krgrun", "-N", "2", "-q", "--omp=krg", "--stats=json", self.build / "test-bin/omp_crowd", str(threads), "team"],
                                timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        (process,) = json.loads(done.stderr.splitlines()[-1])
        blocks = [region for region in process["regions"] if "shared" in region["name"] and region["name"].endswith(" of libgomp.so.1")]
        self.assertLess(sum(region["write_faults"] for region in blocks), threads / 8, blocks)

    def test_memory_is_copied_piece_by_piece_when_a_process_is_spread(self):
        copied, go = self.work / "copied", self.work / "go.copied"
        script = f"{self.build}/test-bin/omp_crowd 4 team 256; touch {copied}; while [ ! -e {go} ]; do sleep 0.05; done"
        with subprocess.Popen(self.command(["krgrun", "-N", "2", "-q", "--omp=krg", "bash", "-c", script]), cwd=self.work,
                              env=self.environment()) as process:
            end = time.monotonic() + 120
            while not copied.exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            status = self.text_of(f"/proc/{self.krgd_of(process, 0)}/status")
            go.touch()
            self.assertEqual(process.wait(timeout=60), 0)
        kept_kib = int(re.search(r"RssAnon:\s+(\d+)", status).group(1))  # what the copies took stays krgd's
        self.assertLess(kept_kib, 160 << 10)

    def test_memory_is_told_by_the_lines_that_allocated_it(self):
        source = pathlib.Path(__file__).with_name("sites.cpp").read_text(encoding="ascii").splitlines()
        lines = {line.partition("// site: ")[2]: number for number, line in enumerate(source, 1) if "// site: " in line}
        done = self.run_program(["krgrun", "-N", "2", "-q", "--omp=krg", "--stats=json", self.build / "test-bin/omp_sites"],
                                timeout=120, env={"OMP_NUM_THREADS": "2"})
        self.assertEqual((done.returncode, done.stdout), (0, "40\n"), done.stderr)
        (process,) = json.loads(done.stderr.splitlines()[-1])
        sites = {region.get("line"): region for region in process["regions"] if "site" in region}
        for region in sites.values():
            self.assertRegex(region["name"], r"^allocated in .* of omp_sites$")
        if shutil.which("addr2line") is None:
            self.skipTest("lacks addr2line: no source lines")
        for site in ("template", "plain", "function", "late"):
            region = sites[f"sites.cpp:{lines[site]}"]
            self.assertGreater(region["write_faults"], 0, region)  # of how many pages: some are fetched ahead
        self.assertTrue(all("line" in page for page in process["false_sharing"] if "site" in page))
        # A call over several lines has its first or its last one's number.
        self.assertTrue({f"sites.cpp:{lines['mapping'] - i}" for i in (0, 1)} & set(sites), sites.keys())

    def test_pages_that_several_nodes_write_at_a_time(self):
        for nodes, threads in ((2, 2), (2, 5), (4, 4)):
            with self.subTest(nodes=nodes, threads=threads):
                done = self.run_program(["krgrun", "-N", str(nodes), "-q", "--omp=krg", "--multiple-writers", "--stats=json",
                                         self.build / "test-bin/omp_writers"], timeout=150, env={"OMP_NUM_THREADS": str(threads)})
                self.assertEqual((done.returncode, done.stdout), (0, f"{threads} threads\n"), done.stderr[:2000])
                (process,) = json.loads(done.stderr.splitlines()[-1])
                self.assertGreater(process["multiple_writers"]["pages"], 8)
                self.assertGreater(process["multiple_writers"]["bytes"], 0)
                # Each of 150 sweeps writes 12 pages from all nodes: with one writer each would go to another node once at least.
                arrays = [region for region in process["regions"] if region["name"] in ("bytes of omp_writers", "words of omp_writers")]
                self.assertEqual(len(arrays), 2, process["regions"])
                self.assertLess(sum(region["invalidations"] for region in arrays), 150 * 12 / 2)

    def test_a_grid_that_threads_share_out_in_two_directions(self):
        for nodes in (2, 4):
            with self.subTest(nodes=nodes):
                done = self.run_program(["krgrun", "-N", str(nodes), "-q", "--omp=krg", "--multiple-writers", "--stats=json",
                                         self.build / "test-bin/omp_planes"], timeout=150, env={"OMP_NUM_THREADS": "8"})
                self.assertEqual((done.returncode, done.stdout), (0, "8 threads\n"), done.stderr[:2000])
                (process,) = json.loads(done.stderr.splitlines()[-1])
                self.assertGreater(process["multiple_writers"]["pages"], 8)

    def test_a_program_with_memory_fences_is_told_that_its_pages_have_one_writer(self):
        done = self.run_program(["krgrun", "-N", "2", "-q", "--omp=krg", "--multiple-writers", self.build / "test-bin/omp_flush"], timeout=60,
                                env={"OMP_NUM_THREADS": "2"})
        self.assertEqual((done.returncode, done.stdout), (0, "2 threads\n"), done.stderr)
        self.assertEqual(done.stderr.count("--multiple-writers is not used: the program has memory fences"), 1, done.stderr)
        self.assertNotIn("--multiple-writers", self.run_omp("omp_flush", nodes=2, threads=2).stderr)

    def test_a_page_has_one_writer_where_nothing_else_is_asked_for(self):
        done = self.run_omp("omp_writers", nodes=2, threads=2)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "2 threads\n", ""))

    def test_memory_changes_right_behind_barriers(self):
        for nodes, threads in ((1, 3), (2, 3), (4, 6)):
            with self.subTest(nodes=nodes, threads=threads):
                done = self.run_omp("omp_allocations", nodes=nodes, threads=threads)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "12 of 12 rounds\n", ""))

    def test_signals_arrive_while_members_wait(self):
        done = self.run_omp("omp_signals", "caught", nodes=2, threads=4)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_a_team_that_waits_is_killed(self):
        held = self.build / "test-bin/omp_signals"
        script = (f"for signal in TERM KILL; do coproc {held} hold; read -r line <&${{COPROC[0]}}; echo $line; kill -$signal $COPROC_PID; "
                  "wait $COPROC_PID 2> /dev/null; echo $?; done; ps -e -o comm= | grep -c '^omp_signals$'")
        done = self.run_omp("/bin/bash", "-c", script, nodes=2, threads=4)
        self.assertEqual(done.stdout.split(), ["held", "143", "held", "137", "0"], done.stderr)

    def test_members_wait_as_the_environment_says(self):
        """A member waits by its node's krgd, which looks for what is to come as long as that takes, or blocks."""
        ticks = {policy: self.ticks_while_a_member_waits(policy) for policy in ("active", "passive", "")}
        self.assertGreaterEqual(ticks["active"], ENOUGH_TICKS)
        for policy in ("passive", ""):
            self.assertLess(ticks[policy], ENOUGH_TICKS / 2, ticks)

    def ticks_while_a_member_waits(self, policy):
        """Of processor time, in hundredths of a second, that node 1's krgd takes; no more are waited for than enough, and no longer than
        an active one has ever needed for them here."""
        go = self.work / f"go.{policy}"
        command = f"touch {go}.ready; while [ ! -e {go} ]; do sleep 0.05; done"
        env = self.environment(OMP_NUM_THREADS="2", **({"OMP_WAIT_POLICY": policy} if policy else {}))
        with subprocess.Popen(self.command(["krgrun", "-N", "2", "-q", "--omp=krg", self.build / "test-bin/omp_nodes", command]),
                              cwd=self.work, env=env, stdout=subprocess.PIPE) as process:
            def wait_for(reached, seconds):
                end = time.monotonic() + seconds
                while not reached() and time.monotonic() < end:
                    time.sleep(0.05)

            def ticks():
                return sum(int(field) for field in self.text_of(f"/proc/{krgd}/stat").rsplit(")", 1)[1].split()[11:13])

            wait_for((go.parent / f"{go.name}.ready").exists, 60)
            krgd = self.krgd_of(process, 1)
            wait_for(lambda: False, 0.5)  # what came before is over
            before = ticks()
            wait_for(lambda: ticks() - before >= ENOUGH_TICKS, 120 if policy == "active" else 2)
            spent = ticks() - before
            go.touch()
            self.assertEqual((process.communicate(timeout=60)[0], process.returncode), (b"2 threads\n", 0))
        return spent

    def test_a_process_that_cannot_spread_stays_on_its_node(self):
        done = self.run_omp("omp_signals", "served", nodes=2, threads=4)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("the threads stay on one node", done.stderr)

    def test_what_it_shares_with_other_processes_stays_at_home(self):
        for nodes in (2, 3):
            done = self.run_omp("omp_signals", "shared", nodes=nodes, threads=4)
            self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    session_case.main()
