"""Each tracee prints the same natively and under krgrun, where its children execute on other nodes.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import subprocess

import session_case
from session_case import SessionCase


class TraceesTest(SessionCase):
    def compare(self, name):
        program = self.build / "test-bin/tracees" / name
        native = subprocess.run([program], capture_output=True, text=True, timeout=30, check=True)
        result = self.krgrun(program, nodes=2, timeout=60)
        self.assertEqual(result.stdout, native.stdout, result.stderr)
        self.assertEqual(result.returncode, 0)
        self.assertIn("elsewhere", result.stderr.split(), "no child was placed on another node")

    def test_exit_statuses(self):
        self.compare("exit_statuses")

    def test_fork_only(self):
        self.compare("fork_only")

    def test_event_children(self):
        self.compare("event_children")

    def test_event_forks(self):
        self.compare("event_forks")

    def test_signals_to_child(self):
        self.compare("signals_to_child")

    def test_identity(self):
        self.compare("identity")

    def test_groups(self):
        self.compare("groups")

    def test_usage(self):
        self.compare("usage")

    def test_attributes(self):
        self.compare("attributes")

    def test_semaphores(self):
        self.compare("semaphores")

    def test_shared_locks(self):
        if not self.has_shared_memory():
            self.skipTest("/dev/shm is each node's own")
        self.compare("shared_locks")

    def test_messages(self):
        self.compare("messages")

    def test_posix_queues(self):
        self.compare("posix_queues")


if __name__ == "__main__":
    session_case.main()
