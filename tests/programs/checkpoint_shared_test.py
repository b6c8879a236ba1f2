"""Processes that share memory over several nodes, saved at random instants, killed, and gone on with in fresh clusters of other sizes.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from checkpoint_case import CheckpointCase

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

    def test_grids_in_all_kinds_of_memory(self):
        """On as many, fewer and more nodes, one among them, whose kernel has the memory then."""
        for nodes in ((3, 3, 2, 4), (2, 1, 2)):
            self.compare(self.program("shared_grids"), times=len(nodes) - 1, nodes=nodes, caps=CAPS)
            self.assertGreaterEqual(len(self.nodes_of(1)), 2, "it was never on several nodes")
            self.setUp()


if __name__ == "__main__":
    session_case.main()
