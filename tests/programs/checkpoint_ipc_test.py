"""Programs that use System V objects and POSIX message queues, and shared memory with mutexes, saved at random instants, killed, and
gone on with in a fresh cluster.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"


class CheckpointIpcTest(CheckpointCase):
    def program(self, name):
        return str(self.build / "test-bin/programs" / name)

    def test_semaphores_queues_and_segments(self):
        self.compare(self.program("kernel_ipc"), times=3)

    def test_a_grid_in_shared_memory_with_mutexes_of_processes(self):
        for nodes in ((1,), (2, 1, 3)):
            self.compare(self.program("heat"), times=3, nodes=nodes)
            self.setUp()

    def test_objects_without_users_are_saved_of_who_is_alone(self):
        make = "ipcmk -S 2 >/dev/null; ipcmk -Q >/dev/null; ipcmk -M 4096 >/dev/null; "
        show = "ipcs | grep -c ^0x"
        first = self.krgrun("--cluster=none", "bash", "-c", f"{make} krg_checkpoint -o ckpt $$ >log || exit 1; {show}", nodes=1, caps=CAPS)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "3\n", ""))
        again = self.restart()
        self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "3\n", ""))
        more = self.restart("-N", "2")
        if self.has_shared_memory():
            self.assertEqual((more.returncode, more.stdout, more.stderr), (0, "3\n", ""))
        else:
            self.assertIn("it restarts on one node only", more.stderr)

    def test_objects_without_users_on_several_nodes(self):
        script = "ipcmk -S 2 >/dev/null; ipcmk -Q >/dev/null; krg_checkpoint -o ckpt $$ >log || exit 1; ipcs | grep -c ^0x"
        first = self.krgrun("--cluster=none", "bash", "-c", script, nodes=3, caps=CAPS)
        self.assertEqual((first.returncode, first.stdout, first.stderr), (0, "2\n", ""))
        for nodes in ("3", "2", "1"):
            again = self.restart("-N", nodes)
            self.assertEqual((again.returncode, again.stdout, again.stderr), (0, "2\n", ""))

    def test_what_may_be_of_others_is_refused(self):
        """Another application runs in the same system."""
        for nodes, make, what in ((1, "-S 1", "semaphores"), (1, "-Q", "message queue"), (1, "-M 4096", "segment"),
                                  (2, "-S 1", "semaphores"), (2, "-Q", "message queue")):
            script = ("krg_capset -e -CHECKPOINTABLE; sleep 1000 & other=$!\n"
                      f"bash -c 'krg_capset -e +CHECKPOINTABLE; ipcmk {make} >/dev/null; krg_checkpoint -o ckpt $$'; kill $other")
            result = self.krgrun("--cluster=none", "bash", "-c", script, nodes=nodes, caps=CAPS)
            self.assertIn(f"System V {what}", result.stderr)
            self.assertIn("nothing tells whether", result.stderr)

    def test_a_process_that_waits_to_be_told_of_messages(self):
        program = ("import ctypes, os, subprocess, sys\nrt = ctypes.CDLL(None, use_errno=True)\nq = rt.mq_open(b'/told', os.O_CREAT | os.O_RDWR, 0o600, None)\n"
                   "event = (ctypes.c_char * 64)()\nassert q >= 0 and rt.mq_notify(q, event) == 0, ctypes.get_errno()\n"
                   "sys.exit(subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())]).returncode)")
        result = self.krgrun("--cluster=none", "/usr/bin/python3", "-c", program, nodes=1, caps=CAPS)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("POSIX message queue /told: a process is to be told of its next message", result.stderr)

    def test_semaphores_and_queues_over_nodes(self):
        """On as many, fewer and more nodes, one among them, whose kernel has them then."""
        for nodes in ((2, 3, 1, 2), (3, 2, 3)):
            self.compare(self.program("ipc_over_nodes"), times=len(nodes) - 1, nodes=nodes, caps=("--caps=+CHECKPOINTABLE,+CAN_MIGRATE",))
            parts = {part.name.split(".")[1] for part in (self.work / "ckpt").glob("v*.n*.h5")}
            self.assertGreaterEqual(len(parts), 2, "it was never on several nodes")
            self.setUp()

    def test_a_process_that_waits_to_be_told_of_messages_that_nodes_share(self):
        program = ("import ctypes, os, subprocess, sys\nrt = ctypes.CDLL(None, use_errno=True)\nq = rt.mq_open(b'/told', os.O_CREAT | os.O_RDWR, 0o600, None)\n"
                   "event = (ctypes.c_char * 64)()\nassert q >= 0 and rt.mq_notify(q, event) == 0, ctypes.get_errno()\n"
                   "sys.exit(subprocess.run(['krg_checkpoint', '-o', 'ckpt', str(os.getpid())]).returncode)")
        result = self.krgrun("--cluster=none", "/usr/bin/python3", "-c", program, nodes=2, caps=CAPS)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertIn("POSIX message queue /told: a process is to be told of its next message", result.stderr)

if __name__ == "__main__":
    session_case.main()
