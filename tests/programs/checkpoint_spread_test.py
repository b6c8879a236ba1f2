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

    def save(self, process):
        """A further version, as soon as krgrun takes the signal for it."""
        taken = 0
        while not taken >> (signal.SIGUSR1 - 1) & 1:
            self.assertIsNone(process.poll(), self.errors())
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                lines = [line.split() for line in status]
            if ["Name:", "krgrun"] in lines:  # and not what starts it as another user
                taken = sum(int(line[1], 16) for line in lines if line[0] in ("SigBlk:", "SigCgt:"))
        version, refused = (self.versions() or [0])[-1] + 1, self.refusals()
        process.send_signal(signal.SIGUSR1)
        self.wait_for_version(version, process, refused=refused)

    def where(self, process):
        """The nodes of the program's threads, by their ids. It runs: nothing takes its ids any more."""
        told = self.run_program(["krgrun", f"--cluster=run{process.pid}", "krg_where", "--json"], check=True)
        (found,) = [p["threads"] for p in json.loads(told.stdout) if p["command"] == "checkpoint_open" and "threads" in p]
        return {thread["tid"]: thread["node"] for thread in found}

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

    def test_threads_of_another_runtime(self):
        process = self.begin(self.program(), nodes=2, threads=3, options=("--caps=+DISTANT_THREAD",))
        for nodes in (2, 1, 3):
            time.sleep(self.random.uniform(0.1, 0.4))
            self.save_and_kill(process)
            process = self.go_on(nodes)
        self.finish(process, "3 threads, as it should be\n")

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
