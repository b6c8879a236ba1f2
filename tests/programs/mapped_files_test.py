"""Ordinary files that processes on several nodes have mapped shared: each sees what the others write, and the file has it at
the end. SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from session_case import BUSY, SessionCase

PAGE = 4096
# Processes that hand a token round in the file's first byte; each has a page of its own, and one that all write.
RING = r"""
import mmap, os, sys, time
me, count, turns = (int(a) for a in sys.argv[1:4])
with open("ring", "r+b") as file:
    memory = mmap.mmap(file.fileno(), 0)
before = bytes(memory[4096 * (me + 1):4096 * (me + 1) + 7])
host = os.uname().nodename.encode()[-8:].rjust(8)
memory[4096 * (me + 1):4096 * (me + 1) + len(host)] = host
for turn in range(turns):
    while memory[0] != (turn * count + me) % 256:
        time.sleep(0.0005)
    memory[4096 * 6 + me] += 1
    memory[0] = (memory[0] + 1) % 256
memory.flush()
with open("ring", "rb") as file:
    file.seek(4096 * 6 + me)
    flushed = file.read(1)[0]
memory.close()
os.write(1, f"{before.decode()} {flushed}\n".encode())  # at once
"""


class MappedFilesTest(SessionCase):
    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def sharing_shell(self, script, **options):
        return self.shell(script, env={"KRGRUN_SHARE_FILES": str(self.work)}, **options)

    def make(self, name, pages):
        path = self.work / name
        path.write_bytes(b"".join(f"page {i:2}".encode().ljust(PAGE, b".") for i in range(pages)))
        path.chmod(0o666)
        return path

    def test_processes_on_two_and_four_nodes_see_what_the_others_write(self):
        for nodes in (2, 4):
            with self.subTest(nodes=nodes):
                self.check_ring(nodes)

    def check_ring(self, nodes):
        count, turns = 4, 20
        path = self.make("ring", 8)
        with path.open("r+b") as file:
            file.write(b"\0")
            file.seek(6 * PAGE)
            file.write(bytes(count))
        (self.work / "ring.py").write_text(RING)
        out = self.sharing_shell(f"""{BUSY}
            sleep 0.3
            for i in {' '.join(str(i) for i in range(count))}; do python3 ring.py $i {count} {turns} & all="$all $!"; done
            wait $all; od -An -tu1 -N1 ring""", timeout=120, nodes=nodes)
        *lines, token = out.split("\n")
        self.assertEqual(sorted(lines), [f"page  {i + 1} {turns}" for i in range(count)])
        self.assertEqual(int(token), count * turns, "a program that reads the file afterwards")
        content = path.read_bytes()
        self.assertEqual(content[0], count * turns)
        self.assertEqual(content[6 * PAGE:6 * PAGE + count], bytes([turns] * count))
        hosts = {content[PAGE * (i + 1):PAGE * (i + 1) + 8] for i in range(count)}
        self.assertGreater(len(hosts), 1, "all ran on one node")
        self.assertEqual(content[7 * PAGE:], b"page  7".ljust(PAGE, b"."), "what nobody wrote is as it was")
        self.assertEqual(len(content), 8 * PAGE)

    def test_what_is_behind_the_end_is_not_written(self):
        path = self.work / "short"
        path.write_bytes(b"short")
        path.chmod(0o666)
        self.sharing_shell(f"""{BUSY}
            python3 -c 'import mmap
file = open("short", "r+b")
memory = mmap.mmap(file.fileno(), 5)
memory[0:5] = b"SHORT"' && true""")
        self.assertEqual(path.read_bytes(), b"SHORT")

    def test_a_larger_file_that_grows(self):
        """A file of 2 MiB, filled by one process and read by the next, which makes it longer."""
        self.make("large", 1)
        script = """
import mmap, os, sys
pages = int(sys.argv[1])
file = open("large", "r+b")
file.truncate(pages * 4096)
memory = mmap.mmap(file.fileno(), 0)
print(sum(memory[page * 4096] for page in range(pages)))
for page in range(pages): memory[page * 4096] = 1 + page % 3
memory.close()
"""
        (self.work / "large.py").write_text(script)
        out = self.sharing_shell(f"{BUSY}\nsleep 0.3; python3 large.py 512; python3 large.py 600; cksum < large")
        first, second, _ = out.split("\n")
        self.assertEqual(int(first), ord("p"))
        self.assertEqual(int(second), sum(1 + page % 3 for page in range(512)))
        content = (self.work / "large").read_bytes()
        self.assertEqual([content[page * PAGE] for page in range(600)], [1 + page % 3 for page in range(600)])


if __name__ == "__main__":
    session_case.main()
