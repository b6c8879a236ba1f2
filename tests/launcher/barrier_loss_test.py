"""A node is killed whose programs are members of a barrier (krg/shmem/client.h): the others, which wait for them, are told so, and
so they are from then on. SPDX-License-Identifier: GPL-2.0-or-later
"""
import errno
import os
import signal
import time

import session_case
from launcher_case import LauncherCase

NODES, MEMBERS, ROUNDS, LIMIT_S = 4, 6, 20, 60


class BarrierLoss(LauncherCase):
    def members_of(self, process):
        """The node of each member, once all have passed their rounds."""
        nodes = {}
        while len(nodes) < MEMBERS:
            words = process.stdout.readline().split()
            self.assertEqual((words[0], words[2], words[4:]), ("member", "node", ["rounds", str(ROUNDS)]), words)
            nodes[int(words[1])] = int(words[3])
        return nodes

    def test_members_on_a_node_that_dies(self):
        program = self.build / "test-bin/programs/shared_barriers"
        script = f"{session_case.BUSY}; {program} {MEMBERS} {ROUNDS} lost"
        process = self.start("timeout", str(LIMIT_S), "krgrun", "-N", str(NODES), session_case.SPREAD, "bash", "-c", script)
        nodes = self.members_of(process)
        lost = max(nodes.values())
        self.assertGreater(lost, 0, nodes)
        (self.work / "new").write_text(f"{lost}\n", encoding="ascii")
        (self.work / "new").rename(self.work / "lost")
        time.sleep(0.3)  # most wait by then; who comes later is told the same
        os.kill(self.krgd_of(lost), signal.SIGKILL)
        told = sorted(line for line in process.stdout if line.startswith("member"))
        survivors = sorted(member for member, node in nodes.items() if node != lost)
        self.assertEqual(told, [f"member {member}: {os.strerror(errno.EOWNERDEAD)}\n" for member in survivors for _ in range(2)])
        process.wait(LIMIT_S)


if __name__ == "__main__":
    session_case.main()
