"""krgrun --hostfile: machines joined by mpirun over a remote shell. The machines are network and host name
namespaces in namespaces of the test's own, so that all of it ends with the test. Needs root.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import shlex
import signal
import subprocess
import sys

import session_case
from launcher_case import LauncherCase

MACHINES = {"198.18.5.1": "m1", "198.18.5.2": "m2"}
INSIDE = "KRG_TEST_HAS_NAMESPACES"
# Enters a machine as ssh would log in to it.
REMOTE_SHELL = """#!/bin/sh
host=$1; shift
exec ip netns exec "$host" unshare --uts sh -c "hostname m${host##*.}; $*"
"""


def make_machines():
    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    for address in MACHINES:
        ip("netns", "add", address)
    first, second = MACHINES
    ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
    for address in MACHINES:
        ip("-n", address, "address", "add", f"{address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", address, "link", "set", link, "up")


class Hosts(LauncherCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_machines()
        cls.remote_shell = cls.dir / "remote-shell"
        cls.remote_shell.write_text(REMOTE_SHELL)
        cls.remote_shell.chmod(0o755)

    def on_first(self, *arguments, hosts=tuple(MACHINES)):
        file = self.work / "hosts"
        file.write_text("# the machines\n" + "".join(f"{host} slots=1\n" for host in hosts))
        words = ["krgrun", "--hostfile", file, "--rsh-agent", self.remote_shell, *arguments]
        return [self.remote_shell, next(iter(MACHINES)), shlex.join(str(w) for w in words)]

    def run_on_first(self, *arguments, **options):
        return self.run_program(self.on_first(*arguments, **options))

    def test_programs_run_on_all_machines(self):
        spin = "bash -c 'echo $HOSTNAME; while [ $SECONDS -lt 1 ]; do :; done' &"
        run = self.run_on_first("--caps=+DISTANT_FORK", "bash", "-c", f"{spin * 6} wait; exit 3")
        self.assertEqual(run.returncode, 3, run.stderr)
        self.assertEqual(len(run.stdout.split()), 6, run.stdout)
        self.assertEqual(set(run.stdout.split()), set(MACHINES.values()))
        self.assert_nothing_left()

    def test_fewer_machines(self):
        run = self.run_on_first("-x", "198.18.5.2", "hostname")
        self.assertEqual((run.returncode, run.stdout), (0, "m1\n"), run.stderr)

    def test_a_killed_krgrun_leaves_nothing(self):
        process = self.start(*self.on_first("--caps=+DISTANT_FORK", "bash", "-c",
                                            "for i in 1 2 3 4; do sleep 1000 & done; echo up; wait"))
        self.assertEqual(process.stdout.readline(), "up\n")
        for pid in self.pids_of("krgrun"):
            os.kill(pid, signal.SIGKILL)
        self.assert_nothing_left()

    def test_what_cannot_be_is_refused(self):
        for arguments, hosts, reason in (
                ([], ("198.18.5.2", "198.18.5.1"), "198.18.5.2 is not"),
                (["-N3"], tuple(MACHINES), "3 hosts asked for"),
                (["-w", "198.18.5.9"], tuple(MACHINES), "does not have 198.18.5.9"),
                ([], (), "0 hosts asked for")):
            run = self.run_on_first(*arguments, "true", hosts=hosts)
            self.assertEqual(run.returncode, 125)
            self.assertIn(reason, run.stderr)
        self.assert_nothing_left()


if __name__ == "__main__":
    if os.geteuid() != 0:
        print("lacks root: machines are network namespaces")
        sys.exit(session_case.SKIPPED)
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        # The shell is the init that takes in orphans: python would not.
        os.execvp("unshare", ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
                              "sh", "-c", '"$@"; exit $?', "init", sys.executable, "-B", *sys.argv])
    session_case.main()
