"""Programs that go on from a checkpoint before all of their pages are loaded (krgrun --restart --lazy): what they do to their
memory meanwhile, what is lost when the rest cannot be read.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import signal

import session_case
from checkpoint_case import CheckpointCase

# Uses its memory in all ways, from several threads and children, whenever it is told to; what it finds is told each time.
MEMORY_WORK = """
import ctypes, mmap, os, random, sys, threading, time, zlib
libc = ctypes.CDLL(None, use_errno=True)
libc.mremap.restype = ctypes.c_void_p
libc.mmap.restype = ctypes.c_void_p
pages = 12000
memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.write(random.Random(1).randbytes(pages * 4096))
moved = libc.mmap(None, ctypes.c_size_t(64 << 20), 3, 0x22, -1, ctypes.c_long(0))
ctypes.memset(moved, 77, 32 << 20)
def look(numbers, found):
    for page in numbers: found[page] = zlib.crc32(memory[page * 4096:page * 4096 + 4096])
def step(number):
    global moved
    order = random.Random(number).sample(range(pages), 2000)
    found = [{} for _ in range(3)]
    threads = [threading.Thread(target=look, args=(order[part::3], found[part])) for part in range(3)]
    for thread in threads: thread.start()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(zlib.crc32(memory)).encode())
        os._exit(0)
    memory.madvise(mmap.MADV_DONTNEED, (number * 101) % 9000 * 4096, 4 << 20)
    for page in range(number, pages, 97): memory[page * 4096 + number] = number
    moved = libc.mremap(ctypes.c_void_p(moved), ctypes.c_size_t(64 << 20), ctypes.c_size_t(64 << 20), 3, ctypes.c_void_p(0x700000000000 + number * (128 << 20)))
    sum_of_moved = zlib.crc32(ctypes.string_at(moved + (number << 20), 4 << 20))
    for thread in threads: thread.join()
    of_child = os.read(reader, 20).decode()
    assert os.waitpid(child, 0) == (child, 0)
    os.close(reader); os.close(writer)
    # What another thread saw of pages that were being written or dropped is by chance.
    print(number, len(found[0]) + len(found[1]) + len(found[2]), of_child, sum_of_moved, zlib.crc32(memory), flush=True)
for number in range(1, 13):
    step(number)
    if number == 3: open("ready", "w").close()
    time.sleep(0.15)
while not os.path.exists("end"): time.sleep(0.01)
step(13)
"""

FAMILY_WORK = """
set -e
trap 'echo "told $seen"; seen=$((seen + 1))' USR2
seen=0
python3 -u -c '
import hashlib, os, time
state = b"start"
for step in range(40):
    for i in range(3000): state = hashlib.md5(state).digest()
    print(step, state.hex())
    if step == 5: open("ready", "w").close()
    while step == 30 and not os.path.exists("end"): time.sleep(0.01)
    time.sleep(0.02)
' | gzip -1 | tee packed | gzip -d | md5sum
kill -USR2 $$
wait
echo "done $seen"
"""

LARGE_WORK = """
import os, time
memory = os.urandom(160 << 20)
open("ready", "w").close()
while not os.path.exists("end"): time.sleep(0.005)
print(len(memory))
"""

# Is moved as soon as there is "end", then looks at all of its memory.
MOVED_WORK = """
python3 -c '
import os, random, time
memory = bytearray(random.Random(2).randbytes(100 << 20))
open("ready", "w").close()
while not os.path.exists("moved"): time.sleep(0.002)
print(memory == random.Random(2).randbytes(100 << 20))
' &
while [ ! -e end ]; do sleep 0.01; done
krg_where $!; krg_migrate $! 1; krg_where $!
touch moved
wait
"""


# On node 1, where there is one.
ELSEWHERE = """
python3 work.py &
krg_migrate $! 1 2>/dev/null
[ "$(krg_where $! 2>/dev/null | awk '{print $2}')" != n0 ] || echo "it is on node 0"
wait
echo ended
"""


class LazyCheckpointTest(CheckpointCase):
    restart_options = ("--lazy",)

    def setUp(self):
        super().setUp()
        if self.as_user:  # forks could not be followed: all comes first, which is told
            self.restart_tells = ("krgrun: all pages are loaded first: forks of a process whose pages come later take CAP_SYS_PTRACE, Linux 6.6: "
                                  "Operation not supported\n")

    def test_memory_that_changes_meanwhile(self):
        self.compare("/usr/bin/python3", "-c", MEMORY_WORK, times=3, nodes=(1, 2))

    def test_a_family(self):
        self.compare("bash", "-c", FAMILY_WORK, times=3, nodes=(2, 1, 3), caps=("--caps=+CHECKPOINTABLE,+DISTANT_FORK",))

    def test_members_of_other_nodes(self):
        """They run there before their pages are there, use their memory in all ways, and are saved and restarted again."""
        (self.work / "work.py").write_text(MEMORY_WORK)
        self.compare("bash", "-c", ELSEWHERE, times=3, nodes=(2, 4, 3, 2), caps=("--caps=+CHECKPOINTABLE,+CAN_MIGRATE",))

    def test_damaged_pages_of_another_node(self):
        """The member there has run already when its pages are found damaged: the whole family is killed, and why is told."""
        (self.work / "work.py").write_text(LARGE_WORK)
        process = self.start("-N", "2", f"--checkpoint-dir={self.work / 'ckpt'}", "--caps=+CHECKPOINTABLE,+CAN_MIGRATE", "bash", "-c", ELSEWHERE)
        self.wait_for_file("ready", process)
        self.save_and_kill(process)
        self.damage(self.work / "ckpt" / "v1.n1.h5")
        lazily = self.restart("-N", "2", "--lazy")
        self.assertEqual(lazily.returncode, 125 if self.as_user else 128 + signal.SIGKILL, lazily.stderr)
        what = "cannot restart" if self.as_user else "the rest of the checkpoint cannot be read"
        self.assertRegex(lazily.stderr, what + r": .*v1\.n1\.h5: it is damaged \(block \d+ of its pages\)")

    def test_moves_before_all_is_loaded(self):
        """It goes along with what is still to come."""
        output = self.interrupted("bash", "-c", MOVED_WORK, times=1, nodes=(2,), caps=("--caps=+CHECKPOINTABLE,+CAN_MIGRATE",), ready="ready")
        self.assertEqual([line.split()[-2] if "python3" in line else line for line in output.splitlines()], ["n0", "n1", "True"])

    @staticmethod
    def damage(part):
        with open(part, "r+b") as file:
            file.seek(part.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 4]))

    def test_damaged_pages(self):
        """All is killed, and why is told, when a block that was to come is damaged; without --lazy nothing starts."""
        process = self.start(f"--checkpoint-dir={self.work / 'ckpt'}", "/usr/bin/python3", "-c", LARGE_WORK)
        self.wait_for_file("ready", process)
        self.save_and_kill(process)
        self.damage(self.work / "ckpt" / "v1.n0.h5")
        lazily = self.restart("--lazy")
        self.assertEqual(lazily.returncode, 125 if self.as_user else 128 + signal.SIGKILL, lazily.stderr)
        what = "cannot restart" if self.as_user else "the rest of the checkpoint cannot be read"
        self.assertRegex(lazily.stderr, what + r": .*v1\.n0\.h5: it is damaged \(block \d+ of its pages\)")
        at_once = self.restart()
        self.assertEqual(at_once.returncode, 125, at_once.stderr)
        self.assertIn("cannot restart", at_once.stderr)

    def test_needs_a_restart(self):
        refused = self.run_program(["krgrun", "--lazy", "true"])
        self.assertEqual(refused.returncode, 125)
        self.assertIn("--lazy says how to restart: it needs --restart", refused.stderr)


if __name__ == "__main__":
    session_case.main()
