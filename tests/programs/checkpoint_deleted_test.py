"""Files without a name, whose contents are in the checkpoint.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"

# Saves itself twice, and tells what is in its files before, between and afterwards: who restarts it sees the latter alone.
FILES = """
import hashlib, mmap, os, subprocess, sys
mib = 1 << 20
memory, small = os.memfd_create("m"), os.memfd_create("m")
os.ftruncate(memory, 700 * mib + 5)
for at in (3, 400, 699): os.pwrite(memory, bytes([at % 251]) * 3 + os.urandom(90 * mib), at * mib)
os.write(small, b"little")
with open("gone", "wb") as file: file.write(os.urandom(5 * mib + 7))
gone, again = os.open("gone", os.O_RDWR | os.O_APPEND), os.open("gone", os.O_RDONLY)
os.unlink("gone"); os.lseek(again, 77, os.SEEK_SET)
mapped = os.memfd_create("mapped"); os.ftruncate(mapped, 3 * mib)
view = mmap.mmap(mapped, 2 * mib)
view[5:9] = b"view"
def digest(fd):
    found = hashlib.sha256()
    for at in range(0, os.fstat(fd).st_size, mib): found.update(os.pread(fd, mib, at))
    return os.fstat(fd).st_size, found.hexdigest(), os.lseek(fd, 0, os.SEEK_CUR)
def save():
    subprocess.run(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=open("log", "a"), check=True)
def tell():
    print(*(digest(fd) for fd in (memory, small, gone, again, mapped)), os.fstat(memory).st_blocks * 512 < 300 * mib, view[:9], flush=True)
save()
view[70:74] = b"seen"; os.pwrite(memory, b"new", 400 * mib); os.write(gone, b"more")
tell(); save(); tell()
os.write(gone, b"appended")
print(os.fstat(again).st_size, view[70:74], os.pread(mapped, 4, 70))
"""


class CheckpointDeletedTest(CheckpointCase):
    def test_large_files_without_a_name(self):
        """In memory and on the disk, with holes, one of them by two descriptions and mapped: their contents are among the pages."""
        (self.work / "work.py").write_text(FILES, encoding="ascii")
        first = self.krgrun("--cluster=none", "/usr/bin/python3", "work.py", caps=CAPS, nodes=1)
        self.assertEqual((first.returncode, first.stderr), (0, ""), first.stdout)
        told, same, last = first.stdout.splitlines()
        self.assertEqual(told, same)
        self.assertIn("True b'\\x00", told)
        for nodes in (1, 2):
            again = self.restart("-N", str(nodes))
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, f"{same}\n{last}\n", ""))


if __name__ == "__main__":
    session_case.main()
