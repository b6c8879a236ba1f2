"""Memory of other nodes for one process: more than its node may have.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json

import session_case
from session_case import SessionCase

CAPS = "--caps=+USE_REMOTE_MEMORY"
LIMIT = "--mem-per-node=16M"

PYTHON = """
import array, subprocess, sys
mib = int(sys.argv[1]) << 20
numbers = array.array('Q', bytes(mib // 2))
text = bytearray(mib // 2)
for i in range(0, len(numbers), 512): numbers[i] = i
for i in range(0, len(text), 4096): text[i] = i // 4096 % 251
right = all(numbers[i] == i for i in reversed(range(0, len(numbers), 512)))
right &= all(text[i] == i // 4096 % 251 for i in range(0, len(text), 4096))
right &= subprocess.run(['echo', 'child'], capture_output=True).stdout == b'child' + bytes([10])
print(right)
"""


class RemoteMemoryTest(SessionCase):
    def run_remote(self, *command, caps=CAPS, limit=LIMIT, **options):
        return self.krgrun(limit, *command, caps=caps, **options)

    def program(self):
        return self.build / "test-bin/programs/remote_memory"

    def test_one_block_is_right_in_every_order(self):
        result = self.run_remote(self.program(), "40", timeout=120)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "right\n", ""))

    def test_small_blocks_are_right(self):
        result = self.run_remote(self.program(), "40", "small", timeout=120)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "right\n", ""))

    def test_python_uses_more_than_its_node_has(self):
        (self.work / "memory.py").write_text(PYTHON, encoding="ascii")
        result = self.run_remote("/usr/bin/python3", "memory.py", "40", timeout=120)
        self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "True\n", ""))

    def test_evictions_are_counted_and_nothing_is_left_by_the_dead(self):
        out = self.shell(
            f"{self.program()} 40 block 'kradm kddm --json > counts'\n"
            f"{self.program()} 40 & sleep 0.5; kill -9 $!; wait $! 2>/dev/null\n"
            "for ((i = 0; i < 100; i++)); do kradm kddm --json > left; grep -q '\"memory_used\": [1-9]' left || break; "
            "sleep 0.1; done", caps=CAPS, env={"KRGRUN_MEM_PER_NODE": "16M"}, timeout=120)
        self.assertEqual(out, "right")
        during = json.loads((self.work / "counts").read_text(encoding="ascii"))["nodes"]
        sets = [s for s in during[0]["sets"] if s["set"].startswith("524d")]
        for name in ("evictions", "refetches"):
            self.assertGreater(sum(s[name] for s in sets), (24 << 20) // 4096, name)
        self.assertGreater(sum(node["memory_used"] > 0 for node in during), 2)
        left = json.loads((self.work / "left").read_text(encoding="ascii"))["nodes"]
        self.assertEqual([(node["memory_used"], node["memory_limit"]) for node in left], [(0, 16 << 20)] * 4)

    def test_more_than_all_nodes_have_is_refused(self):
        result = self.run_remote("/usr/bin/python3", "-c", "bytearray(70 << 20)", timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn("MemoryError", result.stderr)

    def test_without_the_capability_memory_is_native(self):
        result = self.run_remote("/usr/bin/python3", "-c", "bytearray(70 << 20); import os; os.fork()", caps="")
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_the_capability_needs_a_limit(self):
        result = self.krgrun("true", caps=CAPS)
        self.assertEqual(result.returncode, 125)
        self.assertIn("--mem-per-node", result.stderr)


if __name__ == "__main__":
    session_case.main()
