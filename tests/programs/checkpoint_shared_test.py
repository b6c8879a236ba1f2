"""Processes that share memory over several nodes, saved at random instants, killed, and gone on with in fresh clusters of other sizes.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import signal
import time

import session_case
from checkpoint_case import CheckpointCase

# Python's ways of sharing: numbers, locks, a barrier and a block of memory. Who looks after names would be its first child: one that
# execs, for which krgd would leave all others to their exec.
MULTIPROCESSING = """
import multiprocessing as mp, os, sys, time
from multiprocessing import resource_tracker, shared_memory
resource_tracker.register = resource_tracker.unregister = lambda *_: None
WORKERS, STEPS, CELLS = 3, 40, 3000
def work(me, block, total, lock, barrier, told):
    memory = shared_memory.SharedMemory(name=block)
    cells = memory.buf.cast("q")
    for step in range(STEPS):
        here, there = (step % 2) * CELLS, (1 - step % 2) * CELLS
        added = 0
        for i in range(me, CELLS, WORKERS):
            cells[there + i] = (cells[here + i] + cells[here + (i + 1) % CELLS] + step) % 1000003
            added += cells[there + i]
        with lock: total.value += added
        barrier.wait()
        with told.get_lock(): pass
        while told.value <= step: time.sleep(0.001)
        if step % 10 == 5:
            other = shared_memory.SharedMemory(name=block); assert bytes(other.buf[:80]) == bytes(memory.buf[:80]); other.close()
    cells.release(); memory.close()
    sys.exit(30 + me)
context = mp.get_context("fork")
memory = shared_memory.SharedMemory(create=True, size=2 * 8 * CELLS)
cells = memory.buf.cast("q")
for i in range(CELLS): cells[i] = i * i
total, told, lock, barrier = context.Value("q", 0), context.Value("i", 0), context.Lock(), context.Barrier(WORKERS + 1)
workers = [context.Process(target=work, args=(n, memory.name, total, lock, barrier, told)) for n in range(WORKERS)]
for worker in workers: worker.start()
open("ready", "w").close()
for step in range(STEPS):
    barrier.wait()
    print(step, total.value, flush=True)
    time.sleep(0.03)
    while step == 35 and not os.path.exists("end"): time.sleep(0.01)
    told.value = step + 1
for worker in workers: worker.join()
print([worker.exitcode for worker in workers], sum(cells))
cells.release(); memory.close(); memory.unlink()
"""

# Maps a file of /dev/shm and waits.
USER = """
import mmap, sys, time
file = open("/dev/shm/common", "r+b")
memory = mmap.mmap(file.fileno(), 4096); memory[0] = 1
open(sys.argv[1], "w").close()
time.sleep(1000)
"""

WORD_PAGES = 2048  # of shared_words

CAPS = ("--caps=+CHECKPOINTABLE,+DISTANT_FORK",)


class CheckpointSharedTest(CheckpointCase):
    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")
        super().setUp()

    def program(self, name):
        return str(self.build / "test-bin/programs" / name)

    def nodes_of(self, version):
        return {part.name.split(".")[1] for part in (self.work / "ckpt").glob(f"v{version}.n*.h5")}

    def output(self):
        return (self.work / "output").read_text()

    def begin(self, program, nodes, *arguments):
        """In a fresh cluster; what it prints is in "output"."""
        process = self.start("-N", str(nodes), f"--checkpoint-dir={self.work / 'ckpt'}", *CAPS, "sh", "-c", 'exec "$@" >output 2>&1', "sh",
                             self.program(program), *arguments)
        self.wait_for_file("ready", process)
        self.wait_until_it_takes_signals(process)
        return process

    def save(self, process):
        before = (self.versions() or [0])[-1]
        process.send_signal(signal.SIGUSR1)
        self.wait_for_version(before + 1, process)

    def pages(self, version):
        """That it holds, and that its processes have."""
        told = self.run_program(["krg_checkpoint", "show", "ckpt", str(version)], check=True).stdout
        own, all_pages = re.search(r"pages (\d+) bytes, of (\d+) bytes", told).groups()
        return int(own) // 4096, int(all_pages) // 4096

    def test_grids_in_all_kinds_of_memory(self):
        """On as many, fewer and more nodes, one among them, whose kernel has the memory then."""
        for nodes in ((3, 3, 2, 4), (2, 3, 1)):
            self.compare(self.program("shared_grids"), times=len(nodes) - 1, nodes=nodes, caps=CAPS)
            self.assertGreaterEqual(len(self.nodes_of(1)), 2, "it was never on several nodes")
            self.setUp()

    def test_python_multiprocessing(self):
        (self.work / "work.py").write_text(MULTIPROCESSING, encoding="ascii")
        nodes = (3, 2, 1, 3)
        self.compare("/usr/bin/python3", "work.py", times=3, nodes=nodes, caps=CAPS)
        self.assertGreaterEqual(len(self.nodes_of(1)), 2, "it was never on several nodes")

    def test_what_was_one_kernels_goes_to_several_nodes(self):
        for program, nodes in (("heat", (1, 3, 1, 2)), ("kernel_ipc", (1, 2, 1, 3))):
            self.compare(self.program(program), times=len(nodes) - 1, nodes=nodes, caps=CAPS)
            self.setUp()

    def test_with_pages_that_come_later(self):
        if self.as_user:
            return  # whose pages all come first: checkpoint_lazy_test
        self.restart_options = ("--lazy",)
        for program, nodes in (("heat", (1, 3, 1, 2)), ("shared_grids", (3, 2, 3, 1))):
            self.compare(self.program(program), times=len(nodes) - 1, nodes=nodes, caps=CAPS)
            self.setUp()

    def test_memory_is_saved_as_it_was_while_all_write_on(self):
        """Pages go from node to node all the time; each writer finds what it had written where when it was saved."""
        process = self.begin("shared_words", 3)
        for nodes in (2, 1, 3):
            for _ in range(3):
                time.sleep(self.random.uniform(0.1, 0.5))
                self.save(process)
            self.end(process)
            process = self.start("-N", str(nodes), f"--checkpoint-dir={self.work / 'ckpt'}", f"--restart={self.work / 'ckpt'}")
            self.wait_until_it_takes_signals(process)
            self.save(process)
        self.end(process)
        (self.work / "end").touch()
        done = self.restart("-N", "2")
        self.assertEqual((done.returncode, done.stdout), (0, ""), self.output())
        self.assertIn("all as it was", self.output())

    def test_increments_hold_what_any_node_has_written_since(self):
        process = self.begin("shared_words", 3, "parts")
        self.save(process)
        for part in (1, 2, 3):
            (self.work / f"part.{part}").touch()
            while not (done := self.work / "parts.done").exists() or done.read_text() != f"{part}\n":
                self.assertIsNone(process.poll(), self.errors() + self.output())
                time.sleep(0.02)
            self.save(process)
        self.end(process)
        self.assertGreater(self.pages(1)[0], WORD_PAGES)
        for version in (2, 3, 4):
            own, all_pages = self.pages(version)
            self.assertGreater(all_pages, WORD_PAGES)
            self.assertGreaterEqual(own, 30)
            self.assertLess(own, WORD_PAGES / 2, f"version {version}")
        (self.work / "end").touch()
        told = set()
        for version, nodes in ((4, 3), (2, 1), (1, 2), (3, 4)):
            done = self.restart("-N", str(nodes), f"--restart-version={version}")
            self.assertEqual((done.returncode, done.stdout), (0, ""), self.output())
            told.add(self.output())
        self.run_program(["krg_checkpoint", "consolidate", "ckpt", "4"], check=True)
        self.run_program(["krg_checkpoint", "prune", "ckpt", "1"], check=True)
        self.assertEqual(self.run_program(["krg_checkpoint", "verify", "ckpt"], check=True).stdout, "version 4: whole\n")
        self.restart("-N", "2", check=True)
        self.assertEqual(told, {self.output()})
        self.assertIn("all as it was", self.output())

    def refused(self, prepare, *options):
        """What krg_checkpoint of a family says beside which another application runs."""
        script = f"krg_capset -e -CHECKPOINTABLE; {prepare}; kill $(jobs -p)"
        result = self.krgrun("--cluster=none", *options, "bash", "-c", script, nodes=2, caps=CAPS[0])
        return result.stderr

    def test_what_may_be_of_others_is_refused(self):
        family = "bash -c 'krg_capset -e +CHECKPOINTABLE; {} krg_checkpoint -o ckpt $$'"
        alone = self.refused("sleep 1000 & " + family.format("echo 1 >/dev/shm/left;"))
        self.assertIn("/dev/shm/left: nothing tells whether it is this application's", alone)
        alone = self.refused("sleep 1000 & " + family.format("ipcmk -M 4096 >/dev/null;"))
        self.assertIn("System V segment", alone)
        self.assertIn("nothing tells whether", alone)

    def test_memory_that_others_have_mapped_is_refused(self):
        (self.work / "user.py").write_text(USER, encoding="ascii")
        user = "/usr/bin/python3 user.py"
        wait = "until [ -e {} ]; do sleep 0.02; done; "
        shared = self.refused(f"truncate -s 4096 /dev/shm/common; {user} first & {wait.format('first')}"
                              f"bash -c 'krg_capset -e +CHECKPOINTABLE; {user} second & {wait.format('second')} krg_checkpoint -o ckpt $$; kill %1'")
        self.assertIn("memory that it shares with process", shared)
        self.assertIn("which is outside of the family", shared)

    def test_files_that_are_shared_are_refused(self):
        (self.work / "mapped").write_bytes(b"x" * 4096)
        (self.work / "mapped").chmod(0o666)
        program = ("import mmap, os, subprocess; f = open('mapped', 'r+b'); m = mmap.mmap(f.fileno(), 4096); m[0] = 1; "
                   "subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())])")
        result = self.krgrun("--cluster=none", f"--share-files={self.work}", "/usr/bin/python3", "-c", program, nodes=2, caps=CAPS[0])
        self.assertIn("a file of --share-files that it has mapped", result.stderr)


if __name__ == "__main__":
    session_case.main()
