"""What runs out ends programs, not nodes: memory, descriptors.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import subprocess

import session_case
from session_case import BUSY, SessionCase, lacks

# Shared mappings that all of a few dozen children write while all of them live; each child costs krgd a descriptor for each.
MAPPINGS = """
import mmap, os
maps = [mmap.mmap(-1, 4096) for _ in range(60)]
(done, told), (go, let_go) = os.pipe(), os.pipe()
children = []
for number in range(24):
    pid = os.fork()
    if pid == 0:
        os.close(let_go)
        for memory in maps: memory[number] = number + 1
        os.write(told, b"x")
        os.read(go, 1)
        os._exit(0)
    children.append(pid)
for _ in children: os.read(done, 1)
os.close(let_go)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
print(sum(bytes(memory[:24]) == bytes(range(1, 25)) for memory in maps))
"""

# Maps one shared file until that is refused; whether there were some till then; then once more, where some have gone.
MANY_MAPPINGS = """
import errno, mmap, os
file = os.open("/dev/shm/many", os.O_RDWR | os.O_CREAT)
os.unlink("/dev/shm/many")
os.ftruncate(file, 4096)
maps = []
try:
    while len(maps) < 1000: maps.append(mmap.mmap(file, 4096))
except OSError as refused:
    print(errno.errorcode[refused.errno], len(maps) > 50)
del maps[-20:]
again = mmap.mmap(file, 4096)
again[0:10] = b"afterwards"
print(maps[0][0:10].decode())
"""


class LimitsTest(SessionCase):
    def test_memory_is_taken_from_programs_first(self):
        """When it runs out, the kernel ends the process whose score is highest: never krgd as long as there are programs."""
        reads = "/usr/bin/cat /proc/self/oom_score_adj"
        process = subprocess.Popen(self.command(["krgrun", "-N", "2", "bash", "-c", f"{reads}; read -r; true"]), cwd=self.work,
                                   env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with process:
            try:
                program = int(process.stdout.readline())
                own = [int(self.text_of(f"/proc/{self.krgd_of(process, node)}/oom_score_adj")) for node in (0, 1)]
            finally:
                process.stdin.close()
        self.assertEqual(process.wait(), 0)
        for score in own:
            self.assertGreaterEqual(program - score, 300)
        if min(own) < 0:
            self.assertEqual(program, int(self.text_of("/proc/self/oom_score_adj")), "where krgd goes last they keep what they have")
        placed = self.shell(f"{BUSY}\n{BUSY}\n{BUSY}\nsleep 0.3; {reads}", nodes=2)
        self.assertEqual(placed, str(program), "also where they are placed")

    def test_few_descriptors(self):
        """krgd needs a descriptor for each mapping of each child: it takes more than its caller may have."""
        if not self.has_shared_memory():
            lacks("userfaultfd_kernel_faults", "nodes share no memory")
        (self.work / "mappings.py").write_text(MAPPINGS, encoding="ascii")
        told = self.run_program(["bash", "-c", "ulimit -Sn 256; exec krgrun -N 2 --caps=+CAN_MIGRATE /usr/bin/python3 mappings.py"])
        self.assertEqual((told.returncode, told.stdout, told.stderr), (0, "60\n", ""))

    def test_as_many_mappings_as_krgd_has_descriptors_for(self):
        """Then there is no more memory: never a mapping that is another node's too no longer."""
        if not self.has_shared_memory():
            lacks("userfaultfd_kernel_faults", "nodes share no memory")
        (self.work / "many.py").write_text(MANY_MAPPINGS, encoding="ascii")
        told = self.run_program(["bash", "-c", "ulimit -n 600; exec krgrun -N 2 --caps=+DISTANT_FORK /usr/bin/python3 many.py"])
        known = "ENOMEM|ESRCH" if self.as_user else "ENOMEM"  # docs/LIMITS.md
        self.assertEqual((told.returncode, told.stderr), (0, ""), told.stdout)
        self.assertRegex(told.stdout, rf"^({known}) True\nafterwards\n$")


if __name__ == "__main__":
    session_case.main()
