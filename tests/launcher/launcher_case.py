"""LauncherCase: a state folder of each test's own, which also tells the processes of its clusters.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

from session_case import NOBODY, SessionCase

END_LIMIT_S = 15


def wait_until(condition, limit_s=END_LIMIT_S):
    """The condition's first true value; its last value when the time is over."""
    end = time.monotonic() + limit_s
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


class LauncherCase(SessionCase):
    def setUp(self):
        # Short: the path of a socket has 107 bytes at the most (unix(7)).
        self.state = pathlib.Path(tempfile.mkdtemp(prefix="krg-st-"))
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)
        if self.as_user:
            os.chown(self.state, NOBODY, NOBODY)
        self.before = self.machine()
        self.addCleanup(self.end_everything)

    def environment(self, **more):
        return super().environment(KRG_STATE_DIR=str(self.state), **more)

    def start(self, *arguments, **options):
        """Starts a program in the background, as Popen does, in the test's environment and user."""
        options.setdefault("stdin", subprocess.DEVNULL)
        for stream in ("stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        process = subprocess.Popen(self.command(arguments), cwd=self.work, env=self.environment(),
                                   text=True, **options)
        self.addCleanup(self.reap, process)
        return process

    @staticmethod
    def reap(process):
        if process.poll() is None:
            process.kill()
        process.communicate()

    def processes(self):
        """{pid: name} of everything that was started with this test's state folder."""
        found = {}
        marker = f"KRG_STATE_DIR={self.state}\0".encode()
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if marker in (entry / "environ").read_bytes() + b"\0":
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except OSError:
                pass
        return found

    def pids_of(self, name):
        return [pid for pid, comm in self.processes().items() if comm == name]

    def krgd_of(self, node):
        """The pid of a virtual node's krgd: its network address ends in node + 1."""
        address = f"|-- 198.18.0.{node + 1}\n"
        return next(p for p in self.pids_of("krgd") if address in pathlib.Path(f"/proc/{p}/net/fib_trie").read_text())

    @staticmethod
    def machine():
        """What a cluster must leave as it was."""
        return {"mounts": pathlib.Path("/proc/self/mountinfo").read_text(),
                "links": sorted(os.listdir("/sys/class/net")),
                "shared memory": sorted(n for n in os.listdir("/dev/shm") if "krg" in n or "psm" in n)}

    def assert_nothing_left(self):
        left = wait_until(lambda: not self.processes())
        self.assertTrue(left, f"still running: {self.processes()}")
        wait_until(lambda: not os.listdir(self.state))
        self.assertEqual(os.listdir(self.state), [])
        self.assertEqual(self.machine(), self.before)

    def end_everything(self):
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
