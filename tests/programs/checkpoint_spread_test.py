"""Processes whose threads run on several nodes (--omp=krg, DISTANT_THREAD) are saved at random instants, killed, and go on, on as many
nodes or on others.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import signal
import time

import session_case
from checkpoint_case import CheckpointCase


class CheckpointSpreadTest(CheckpointCase):
    settings = {"KRGRUN_THREADS": "stay"}  # whether or not several nodes pay

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

    def save(self, process):
        """A further version, as soon as krgrun takes the signal for it."""
        taken = 0
        while not taken >> (signal.SIGUSR1 - 1) & 1:
            self.assertIsNone(process.poll(), self.errors())
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                lines = [line.split() for line in status]
            if ["Name:", "krgrun"] in lines:  # and not what starts it as another user
                taken = sum(int(line[1], 16) for line in lines if line[0] in ("SigBlk:", "SigCgt:"))
        version = (self.versions() or [0])[-1] + 1
        process.send_signal(signal.SIGUSR1)
        self.wait_for_version(version, process)

    def where(self, process, command="checkpoint_open"):
        """The nodes of the program's threads, by their ids. It runs: nothing takes its ids any more."""
        told = self.run_program(["krgrun", f"--cluster=run{process.pid}", "krg_where", "--json"], check=True)
        (found,) = [p["threads"] for p in json.loads(told.stdout) if p["command"] == command and "threads" in p]
        return {thread["tid"]: thread["node"] for thread in found}

    def write_part(self, part, process):
        """checkpoint_parts writes it."""
        (self.work / f"part.{part}").touch()
        while (self.work / "parts.done").read_text() != f"{part}\n":
            self.assertIsNone(process.poll(), self.errors() + (self.work / "output").read_text())
            time.sleep(0.02)

    def pages(self, version):
        """That it holds, and that its process has."""
        told = self.run_program(["krg_checkpoint", "show", "ckpt", str(version)], check=True).stdout
        own, all_pages = re.search(r"pages (\d+) bytes, of (\d+) bytes", told).groups()
        return int(own) // 4096, int(all_pages) // 4096

    def assert_increments(self, versions):
        """Of checkpoint_parts: 40 of 8192 pages of its array each, what else it writes, and pages that it was let write ahead."""
        for version in versions:
            own, all_pages = self.pages(version)
            self.assertGreater(all_pages, 8192)
            self.assertGreaterEqual(own, 40)
            self.assertLess(own, 40 + 8192 / 16, f"version {version}")

    def test_increments_hold_what_was_written_since(self):
        process = self.begin(self.program("checkpoint_parts"), 3, nodes=3, threads=6)
        self.save(process)
        for part in (1, 2, 3):
            self.write_part(part, process)
            self.save(process)
        self.end(process)
        self.assertGreater(self.pages(1)[0], 8192)
        self.assert_increments((2, 3, 4))
        (self.work / "end").touch()
        for version, nodes in ((4, 3), (2, 1), (3, 2), (1, 4)):
            self.go_on_to_the_end(f"--restart-version={version}", "-N", str(nodes))
        self.run_program(["krg_checkpoint", "consolidate", "ckpt", "4"], check=True)
        self.run_program(["krg_checkpoint", "prune", "ckpt", "1"], check=True)
        self.assertEqual(self.run_program(["krg_checkpoint", "verify", "ckpt"], check=True).stdout, "version 4: whole\n")
        self.go_on_to_the_end("-N", "2")

    def test_increments_while_threads_are_moved(self):
        process = self.begin(self.program("checkpoint_parts"), 3, nodes=3, threads=6, options=("--omp=krg", "--caps=+CAN_MIGRATE"))
        self.save(process)
        for part in (1, 2, 3):
            before = self.where(process, "checkpoint_part")
            first, second = [tid for tid in sorted(before) if tid != min(before)][:2]
            places = {first: (before[first] + 1) % 3, second: (before[second] + 2) % 3}
            for tid, node in places.items():
                self.run_program(["krgrun", f"--cluster=run{process.pid}", "krg_migrate", str(tid), str(node)], check=True)
            after = self.where(process, "checkpoint_part")
            self.assertEqual({tid: after[tid] for tid in places}, places)
            self.write_part(part, process)
            self.save(process)
        self.end(process)
        self.assert_increments((2, 3, 4))
        (self.work / "end").touch()
        for version, nodes in ((4, 3), (2, 1), (3, 2)):
            self.go_on_to_the_end(f"--restart-version={version}", "-N", str(nodes))

    def test_pages_with_several_writers_are_all_saved(self):
        process = self.begin(self.program(), nodes=3, threads=6, options=("--omp=krg", "--multiple-writers"))
        for _ in range(4):
            time.sleep(self.random.uniform(0, 0.2))
            self.save(process)
        self.save_and_kill(process)
        for version in self.versions():
            own, all_pages = self.pages(version)
            self.assertEqual(own, all_pages)
        self.finish(self.go_on(3), "6 threads, as it should be\n")

    def go_on_to_the_end(self, *options):
        done = self.restart(*options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), (self.work / "output").read_text())
        self.assertTrue((self.work / "output").read_text().endswith("3 parts, as it should be\n"))
        (self.work / "output").write_text("")

    def test_a_restarted_process_has_increments_again(self):
        process = self.begin(self.program("checkpoint_parts"), 6, nodes=2)
        self.save(process)
        part = 0
        for nodes in (3, 1, 2):
            self.end(process)
            process = self.go_on(nodes)
            self.save(process)
            self.assertGreater(self.pages(self.versions()[-1])[0], 8192)
            for _ in range(2):
                part += 1
                self.write_part(part, process)
                self.save(process)
            self.assert_increments(self.versions()[-2:])
        self.end(process)
        self.finish(self.go_on(2), "6 parts, as it should be\n")

    def test_openmp_goes_on_on_any_number_of_nodes(self):
        process = self.begin(self.program(), nodes=2)
        for nodes in (2, 1, 4, 2):
            time.sleep(self.random.uniform(0.1, 0.8))
            self.save_and_kill(process)
            process = self.go_on(nodes)
        self.finish(process)

    def test_it_runs_on_where_it_was(self):
        process = self.begin(self.program(), nodes=4, threads=6)
        for _ in range(8):
            time.sleep(self.random.uniform(0, 0.2))
            self.save(process)
        self.finish(process, "6 threads, as it should be\n")

    def test_pages_that_were_read_before_it_stood_are_read_again_if_they_were_written(self):
        """Of a large process, which has most of them read while its threads run; its log says so."""
        self.settings = self.settings | {"KRG_LOG": "spread:debug,*:warn", "KRG_LOG_FILE": str(self.work / "log")}
        process = self.begin(self.program("checkpoint_writing"), nodes=3)
        for nodes in (2, 3, 1, 2):
            time.sleep(self.random.uniform(0.1, 0.8))
            self.save_and_kill(process)
            told = re.findall(r"(\d+) pages have been read while it ran, (\d+) are to be read", (self.work / "log").read_text(errors="replace"))
            self.assertEqual(len(told), 1, (self.work / "log").read_text(errors="replace") + f" nodes {nodes}")
            self.assertGreater(int(told[0][0]), 0)
            (self.work / "log").write_text("")
            process = self.go_on(nodes)
        self.finish(process)

    def test_threads_of_another_runtime(self):
        process = self.begin(self.program(), nodes=2, threads=3, options=("--caps=+DISTANT_THREAD",))
        for nodes in (2, 1, 3):
            time.sleep(self.random.uniform(0.1, 0.4))
            self.save_and_kill(process)
            process = self.go_on(nodes)
        self.finish(process, "3 threads, as it should be\n")

    def test_threads_whose_last_call_gave_them_memory(self):
        process = self.begin(self.program("checkpoint_computing"), nodes=3, options=("--caps=+DISTANT_THREAD",))
        for nodes in (2, 3):
            self.save_and_kill(process)
            process = self.go_on(nodes)
        self.assertIn("checkpoint_comp", self.run_program(["krg_checkpoint", "list", "ckpt"], check=True).stdout)
        self.finish(process, "3 of 3\n")

    def test_threads_are_where_they_were(self):
        process = self.begin(self.program(), nodes=3, threads=6)
        before = self.where(process)
        self.assertEqual(sorted(before.values()), [0, 0, 1, 1, 2, 2])
        self.save_and_kill(process)
        process = self.go_on(3)
        self.save(process)
        self.assertEqual(self.where(process), before)
        self.end(process)
        process = self.go_on(2)
        self.save(process)
        after = self.where(process)
        self.assertEqual((sorted(after), sorted(after.values())), (sorted(before), [0, 0, 0, 1, 1, 1]))
        self.finish(process, "6 threads, as it should be\n")

    def test_a_restart_says_whether_threads_come_home(self):
        """Of a program for whose threads several nodes do not pay, which was started to stay on them."""
        def wait_until_on(process, *nodes):
            found = set()
            while found != set(nodes):
                self.assertIsNone(process.poll(), self.errors())
                told = self.run_program(["krgrun", f"--cluster=run{process.pid}", "krg_where", "--json"])
                all_processes = json.loads(told.stdout) if told.returncode == 0 else []
                found = {thread["node"] for p in all_processes if p["command"] == "omp_handing" for thread in p.get("threads", [])}
        process = self.begin(self.build / "test-bin/omp_handing", "touch ready")
        wait_until_on(process, 0, 1)
        self.save_and_kill(process)
        process = self.start("-N", "2", "--threads=auto", f"--restart={self.work / 'ckpt'}")
        wait_until_on(process, 0, 1)
        wait_until_on(process, 0)
        (self.work / "stop").touch()
        self.assertEqual(process.wait(timeout=60), 0, self.errors())
        self.assertRegex(self.errors(), r"krgrun: omp_handing \(pid \d+\): its threads waited for pages .* came home after [0-9.]+ s")
        self.assertEqual((self.work / "output").read_text(), "4 threads\n")

    def test_threads_are_bound_to_the_same_processors(self):
        """Where they go to a node that has some of them."""
        (self.work / "work.py").write_text(
            "import os, sys, threading, time\n"
            "each, found, bound = int(sys.argv[1]), {}, threading.Barrier(4)\n"
            "def work(name, processors):\n"
            "    os.sched_setaffinity(0, processors)\n"
            "    before = os.sched_getaffinity(0)\n"
            "    bound.wait()\n"
            "    while not os.path.exists('end'): time.sleep(0.01)\n"
            "    found[name] = os.sched_getaffinity(0), os.sched_getaffinity(0) == before\n"
            "threads = [threading.Thread(target=work, args=one) for one in (('home', {0}), ('away', {2 * each - 1}), ('both', {0, each}))]\n"
            "[t.start() for t in threads]\n"
            "bound.wait()\n"
            "open('ready', 'w')\n"
            "[t.join() for t in threads]\n"
            "print(found['home'], found['away'], found['both'][1])\n", encoding="ascii")
        each = len(os.sched_getaffinity(0))
        process = self.begin("/usr/bin/python3", "work.py", each, nodes=2, options=("--caps=+DISTANT_THREAD",))
        self.save_and_kill(process)
        process = self.go_on(2)
        self.save_and_kill(process)  # and again of what has been restarted
        self.finish(self.go_on(2), f"({{0}}, True) ({{{2 * each - 1}}}, True) True\n")

    def test_who_was_bound_before_the_process_was_spread_stays_bound(self):
        """Who bound itself, and who was bound when it was started."""
        last = len(os.sched_getaffinity(0)) - 1
        for caps in ("", ",+SEE_LOCAL_PROC_STAT"):
            with self.subTest(caps=caps):
                self.setUp()
                (self.work / "work.py").write_text(
                    "import os, subprocess, threading, time\n"
                    "found, bound = {}, threading.Barrier(3)\n"
                    "def work(name, *processors):\n"
                    "    if processors: os.sched_setaffinity(0, processors)\n"
                    "    bound.wait()\n"
                    "    while not os.path.exists('end'): time.sleep(0.01)\n"
                    "    found[name] = os.sched_getaffinity(0)\n"
                    "def start(*one): threads.append(threading.Thread(target=work, args=one)); threads[-1].start()\n"
                    "threads = []\n"
                    "start('early', 0)\n"
                    "while os.sched_getaffinity(threads[0].native_id) != {0}: time.sleep(0.01)\n"
                    "subprocess.run(['krg_capset', str(os.getpid()), '-e', '+DISTANT_THREAD'], check=True)\n"
                    "start('late')\n"
                    "bound.wait()\n"
                    "open('ready', 'w')\n"
                    "[t.join() for t in threads]\n"
                    "print(found['early'], os.sched_getaffinity(0))\n", encoding="ascii")
                process = self.begin("taskset", "-c", last, "/usr/bin/python3", "work.py", nodes=2, options=(f"--caps=-DISTANT_THREAD{caps}",))
                self.save_and_kill(process)
                process = self.go_on(2)
                self.save_and_kill(process)
                self.finish(self.go_on(2), f"{{0}} {{{last}}}\n")

    def test_a_version_that_is_being_written_is_lost_alone(self):
        process = self.begin(self.program())
        for _ in range(4):
            self.save(process)
            before = self.versions()
            process.send_signal(signal.SIGUSR1)
            time.sleep(self.random.uniform(0, 0.15))
            self.end(process)
            self.assertLessEqual(set(before), set(self.versions()))
            process = self.go_on(2)
        self.finish(process)

    def test_calls_that_krgd_answers_wait_on_with_the_programs_memory(self):
        """Threads at home and elsewhere wait for messages, and each gets one, in memory of its own, behind each restart."""
        (self.work / "work.py").write_text(
            "import ctypes, os, threading, time\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "class Message(ctypes.Structure): _fields_ = [('type', ctypes.c_long), ('text', ctypes.c_char * 16)]\n"
            "queue = libc.msgget(0, 0o600)\n"
            "got = {}\n"
            "def receive(n):\n"
            "    for turn in range(3):\n"
            "        into = Message()\n"
            "        size = -1\n"
            "        while size < 0: size = libc.msgrcv(queue, ctypes.byref(into), 16, ctypes.c_long(10 * turn + n), 0)\n"
            "        got[turn, n] = (size, into.type, into.text)\n"
            "threads = [threading.Thread(target=receive, args=(n,)) for n in (1, 2, 3)]\n"
            "[t.start() for t in threads]\n"
            "time.sleep(0.3)\n"
            "open('ready', 'w')\n"
            "for turn in range(3):\n"
            "    while not os.path.exists(f'go.{turn}'): time.sleep(0.02)\n"
            "    for n in (1, 2, 3): libc.msgsnd(queue, ctypes.byref(Message(10 * turn + n, b'to %d.%d' % (turn, n))), 7, 0)\n"
            "    while len(got) < 3 * turn + 3: time.sleep(0.02)\n"
            "[t.join() for t in threads]\n"
            "libc.msgctl(queue, 0, None)\n"
            "print(*(got[turn, n] == (7, 10 * turn + n, b'to %d.%d' % (turn, n)) for turn in range(3) for n in (1, 2, 3)))\n", encoding="ascii")
        process = self.begin("/usr/bin/python3", "work.py", nodes=2, options=("--caps=+DISTANT_THREAD",))
        for turn, nodes in enumerate((2, 3, 1)):
            self.save_and_kill(process)
            process = self.go_on(nodes)
            (self.work / f"go.{turn}").touch()
        self.finish(process, "True " * 8 + "True\n")

    def test_a_program_has_itself_saved(self):
        """By a child, whom a thread waits for; the others sleep and wait for locks meanwhile."""
        (self.work / "work.py").write_text(
            "import os, subprocess, threading, time\n"
            "lock, names = threading.Lock(), []\n"
            "def work(n):\n"
            "    time.sleep(0.2)\n"
            "    with lock: names.append(n)\n"
            "lock.acquire()\n"
            "threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]\n"
            "[t.start() for t in threads]\n"
            "print(subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())], capture_output=True).returncode, flush=True)\n"
            "lock.release()\n"
            "[t.join() for t in threads]\n"
            "print(sorted(names))\n", encoding="ascii")
        caps = "--caps=+DISTANT_THREAD,+CHECKPOINTABLE"
        for options in ([caps, "/usr/bin/python3", "work.py"], [f"--restart={self.work / 'ckpt'}"]):
            done = self.run_program(["krgrun", "--cluster=none", "-q", "-N", "2", *options])
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "0\n[0, 1, 2]\n", ""))


if __name__ == "__main__":
    session_case.main()
