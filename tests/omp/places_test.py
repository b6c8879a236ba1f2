"""Where members of teams on several nodes are bound (OMP_PLACES, OMP_PROC_BIND, proc_bind): on which node, and to which of its processors.

environment: KRG_BUILD_DIR, KRG_TEST_AS; tests/programs in PYTHONPATH
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re

import session_case
from session_case import SessionCase

MEMBER = re.compile(r"(\w+) (\d+) tid (\d+) place (-?\d+) partition (-?\d+)\+(\d+) processor (-?\d+) allowed([ \d]*)$", re.MULTILINE)


class PlacesTest(SessionCase):
    def setUp(self):
        if self.as_user and not (self.userfaultfd_minor() if os.geteuid() == 0
                                 else os.access("/dev/userfaultfd", os.R_OK | os.W_OK)):
            self.skipTest("no /dev/userfaultfd for an ordinary user")
        self.own = sorted(os.sched_getaffinity(0))  # each virtual node's

    def run_omp(self, *arguments, nodes, threads, **env):
        return self.run_program(["krgrun", "-N", str(nodes), "-q", "--omp=krg", self.build / "test-bin/omp_places", *arguments],
                                timeout=120, env={"OMP_NUM_THREADS": str(threads), **env})

    def look(self, nodes, threads, **env):
        """Places, as lists of the cluster's processors; by region a list of members; nodes of the last region's members."""
        where = self.work / "where"
        done = self.run_omp(f"krg_where --json > {where}", nodes=nodes, threads=threads, **env)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn(f"processors {nodes * len(self.own)} places", done.stdout)
        places = [[int(cpu) for cpu in text.split()] for text in re.findall(r"^place \d+:([ \d]*)$", done.stdout, re.MULTILINE)]
        regions = {}
        for region, _, tid, place, first, count, processor, allowed in MEMBER.findall(done.stdout):
            regions.setdefault(region, []).append({
                "tid": int(tid), "place": int(place), "partition": (int(first), int(count)), "processor": int(processor),
                "allowed": [int(cpu) for cpu in allowed.split()]})
        (process,) = [p for p in json.loads(where.read_text(encoding="ascii")) if p["command"] == "omp_places"]
        node_of = {thread["tid"]: thread["node"] for thread in process["threads"]}
        return places, regions, [node_of[member["tid"]] for member in regions["last"]]

    def node_of(self, processor):
        return processor // len(self.own)

    def check_bound(self, places, members):
        """Each member may use its place, as the program sees it, and computes there, as the kernel does."""
        for member in members:
            place = places[member["place"]]
            self.assertEqual(member["allowed"], place, member)
            if len(place) == 1:
                self.assertEqual(member["processor"], self.own[place[0] % len(self.own)], member)

    def test_close_fills_a_node_first(self):
        for nodes in (2, 4):
            with self.subTest(nodes=nodes):
                threads = (nodes - 1) * len(self.own) + 1
                places, regions, on = self.look(nodes, threads, OMP_PLACES="threads", OMP_PROC_BIND="close")
                self.assertEqual(places, [[i] for i in range(nodes * len(self.own))])
                self.assertEqual([member["place"] for member in regions["last"]], list(range(threads)))
                self.assertEqual(on, [self.node_of(i) for i in range(threads)])
                for region in ("default", "close", "last", "fewer", "spread"):
                    self.check_bound(places, regions[region])
                self.assertEqual({member["place"] for member in regions["primary"]}, {0})
                self.assertEqual([member["place"] for member in regions["fewer"]], list(range(threads - 1)))

    def test_spread_goes_round_over_nodes(self):
        for nodes in (2, 4):
            with self.subTest(nodes=nodes):
                each = len(self.own)
                places, regions, on = self.look(nodes, nodes, OMP_PLACES="threads", OMP_PROC_BIND="spread")
                self.assertEqual(on, list(range(nodes)))
                self.assertEqual([member["place"] for member in regions["last"]], [each * i for i in range(nodes)])
                self.assertEqual([member["partition"] for member in regions["last"]], [(each * i, each) for i in range(nodes)])
                self.check_bound(places, regions["default"] + regions["spread"] + regions["last"])
                self.assertEqual([member["place"] for member in regions["close"]], list(range(nodes)))

    def test_more_members_than_places(self):
        places, regions, on = self.look(2, 4 * len(self.own), OMP_PLACES="threads", OMP_PROC_BIND="spread")
        self.assertEqual([member["place"] for member in regions["last"]], [i // 2 for i in range(4 * len(self.own))])
        self.assertEqual(on, [self.node_of(i // 2) for i in range(4 * len(self.own))])
        self.check_bound(places, regions["last"])

    def test_lists_of_the_clusters_processors(self):
        each = len(self.own)
        # A place for each node, those of the last one first: the first thread goes there, too.
        places, regions, on = self.look(2, 2, OMP_PLACES=f"{{{each}:{each}}}:2:-{each}", OMP_PROC_BIND="close")
        self.assertEqual(places, [list(range(each, 2 * each)), list(range(each))])
        self.assertEqual(on, [1, 0])
        self.assertEqual([member["allowed"] for member in regions["last"]], places)
        # One that has some of each node binds where a member is.
        places, regions, on = self.look(2, 2, OMP_PLACES=f"{{0:{2 * each}}}")
        self.assertEqual(places, [list(range(2 * each))])
        self.assertEqual([member["place"] for member in regions["last"]], [0, 0])
        self.assertEqual(sorted(on), [0, 1])

    def test_named_places_are_those_of_all_nodes(self):
        for nodes, name in ((2, "cores"), (2, "sockets"), (4, "ll_caches"), (2, "numa_domains")):
            with self.subTest(nodes=nodes, name=name):
                places, regions, on = self.look(nodes, nodes, OMP_PLACES=name, OMP_PROC_BIND="spread")
                self.assertEqual(sorted(sum(places, [])), list(range(nodes * len(self.own))), "each processor in one place")
                self.assertEqual(places, sorted(places), "node by node")
                for place in places:
                    self.assertEqual(len({self.node_of(cpu) for cpu in place}), 1, place)
                first = [self.node_of(place[0]) for place in places]
                self.assertEqual([first.count(node) for node in range(nodes)], [first.count(0)] * nodes)
                self.assertEqual(on, list(range(nodes)))
                self.check_bound(places, regions["last"])
        places, _, _ = self.look(2, 2, OMP_PLACES="cores(1)")
        self.assertEqual(len(places), 1)

    def test_what_is_not_asked_for_binds_nothing(self):
        every = list(range(2 * len(self.own)))
        for env in ({}, {"OMP_PROC_BIND": "false", "OMP_PLACES": "threads"}):
            with self.subTest(**env):
                places, regions, on = self.look(2, 4, **env)
                self.assertEqual(places, [])
                self.assertEqual(sorted(on), [0, 0, 1, 1])
                for members in regions.values():
                    self.assertEqual({(member["place"], member["partition"]) for member in members}, {(-1, (-1, 0))})
                    self.assertEqual([member["allowed"] for member in members], [every] * len(members))

    def test_what_is_displayed(self):
        each = len(self.own)
        done = self.run_omp(nodes=2, threads=2 * each, OMP_PLACES="threads", OMP_PROC_BIND="close", OMP_DISPLAY_ENV="true",
                            OMP_DISPLAY_AFFINITY="true", OMP_AFFINITY_FORMAT="member %n of %N on %A")
        self.assertEqual(done.returncode, 0)
        self.assertIn("OMP_PLACES = '" + ",".join(f"{{{i}}}" for i in range(2 * each)) + "'", done.stderr)
        self.assertIn("OMP_PROC_BIND = 'CLOSE'", done.stderr)
        for i in range(2 * each):
            self.assertIn(f"member {i} of {2 * each} on {i}\n", done.stderr)


if __name__ == "__main__":
    session_case.main()
