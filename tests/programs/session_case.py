"""SessionCase: the base of the tests that run real programs under krgrun.

As root, a test also runs as an ordinary user when KRG_TEST_AS=user: the programs are then started by
nobody, in a mount namespace where /dev/fuse is open to everybody, as most distributions have it, and
/dev/userfaultfd, as some have.

Environment: KRG_BUILD_DIR (where bin/ and examples/ are), KRG_TEST_AS (root or user).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

NODES = 4
SPREAD = "--caps=+DISTANT_FORK"
# Bash code that keeps this node busy, at the lowest priority, till the job ends: every command is then started elsewhere. The
# loop itself is to stay: it is forked without the capability that SPREAD gives.
BUSY = ("krg_capset -e -DISTANT_FORK; { renice -n 19 $BASHPID >/dev/null; while :; do :; done; } & disown; "
        "krg_capset -e +DISTANT_FORK")
NOBODY = 65534
SKIPPED = 77  # the exit status that says: not run, for the reason printed


class SessionCase(unittest.TestCase):
    """One test folder, owned by the user who runs the programs; krgrun in PATH."""

    settings = {}  # what all its programs have in their environment, as krgrun's options: KRGRUN_NAME

    @classmethod
    def setUpClass(cls):
        cls.build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
        cls.as_user = os.environ.get("KRG_TEST_AS", "root") == "user"
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="krg-programs-"))
        cls.dir.chmod(0o755)
        cls.work = cls.dir / "work"
        cls.work.mkdir()
        if cls.as_user:
            os.chown(cls.work, NOBODY, NOBODY)
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)

    def environment(self, **more):
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("KRG", "SLURM", "OMPI", "PMIX", "XDG_RUNTIME"))}
        env["PATH"] = f"{self.build}/bin:{self.build}/examples:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        env["LC_ALL"] = "C"
        # Terminal programs start it; the account that the tests take may have nologin(8) for its shell.
        env["SHELL"] = "/bin/bash"
        if self.as_user:
            env["HOME"] = str(self.work)
        env.update(self.settings | more)
        return env

    def owner(self):
        """User and group that run the programs."""
        return (NOBODY, NOBODY) if self.as_user and os.geteuid() == 0 else (os.geteuid(), os.getegid())

    def command(self, arguments):
        """What starts `arguments` as the user of this test, to be ended with it at the latest."""
        end_with_this = ["setpriv", "--pdeathsig", "KILL"]
        if not self.as_user or os.geteuid() != 0:
            return [*end_with_this, *(str(a) for a in arguments)]
        script = ""
        for name, major, minor in (("fuse", 10, 229), ("userfaultfd", 10, self.userfaultfd_minor())):
            device = self.dir / name
            if minor and not device.exists():
                os.mknod(device, 0o666 | 0o020000, os.makedev(major, minor))
                device.chmod(0o666)
            if minor:
                script += f"mount --bind {device} /dev/{name} && "
        script += 'exec setpriv --reuid=%d --regid=%d --clear-groups %s "$@"' % (NOBODY, NOBODY, " ".join(end_with_this))
        return ["unshare", "-m", "sh", "-c", script, "sh", *(str(a) for a in arguments)]

    @staticmethod
    def userfaultfd_minor():
        """Of /dev/userfaultfd, which a distribution may open to its users; 0: there is none."""
        return os.minor(os.stat("/dev/userfaultfd").st_rdev) if os.path.exists("/dev/userfaultfd") else 0

    @classmethod
    def has_shared_memory(cls):
        """Whether the cluster can share memory between its nodes, which needs a userfaultfd for system calls."""
        if os.geteuid() == 0:
            return not cls.as_user or cls.userfaultfd_minor() != 0
        return os.access("/dev/userfaultfd", os.R_OK | os.W_OK)

    def run_program(self, arguments, timeout=60, check=False, **options):
        """As subprocess.run, with the output captured; everything is ended at the time limit."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        text = options.pop("input", None)
        stdin = subprocess.PIPE if text is not None else options.pop("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(self.command(arguments), cwd=options.pop("cwd", self.work),
                                   env=self.environment(**options.pop("env", {})), stdin=stdin,
                                   start_new_session=True, text=True, **options)
        if self.as_user and os.geteuid() == 0:  # as if the user had made them
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                os.fchown(pipe.fileno(), NOBODY, NOBODY)
        try:
            out, err = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            self.fail(f"{arguments} took longer than {timeout} s; it wrote:\n{out}\n{err}")
        result = subprocess.CompletedProcess(arguments, process.returncode, out, err)
        if check:
            self.assertEqual(result.returncode, 0, f"{arguments}\n{out}\n{err}")
        return result

    def krgrun(self, *arguments, caps=SPREAD, nodes=NODES, **options):
        """Runs a program on `nodes` virtual nodes."""
        flags = ["-N", str(nodes), *([caps] if caps else [])]
        return self.run_program(["krgrun", *flags, *arguments], **options)

    def shell(self, script, **options):
        """Runs a bash script in a session; its output, stripped. It must succeed and be silent on stderr."""
        result = self.krgrun("bash", "-c", script, **options)
        self.assertEqual((result.returncode, result.stderr or ""), (0, ""), f"{script}\n{result.stdout}")
        return result.stdout.strip()

    @staticmethod
    def text_of(path):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def krgd_of(self, process, node):
        """That of a node of the cluster that this krgrun has started: its network address ends in node + 1."""
        parents = {int(pid): int(text.rsplit(")", 1)[1].split()[1]) for pid in os.listdir("/proc") if pid.isdigit()
                   for text in [self.text_of(f"/proc/{pid}/stat")] if text}
        mine = {process.pid}
        while any(parent in mine and pid not in mine for pid, parent in parents.items()):
            mine |= {pid for pid, parent in parents.items() if parent in mine}
        for pid in mine:
            if self.text_of(f"/proc/{pid}/comm") == "krgd\n" and f"|-- 198.18.0.{node + 1}\n" in self.text_of(f"/proc/{pid}/net/fib_trie"):
                return pid
        return self.fail(f"no krgd of node {node}")


def lacks(name, reason):
    """Ends the whole test program: the machine lacks something (a probe of kradm check)."""
    print(f"lacks {name}: {reason}")
    sys.exit(SKIPPED)


def main():
    """Runs the tests of the calling module."""
    build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
    found = subprocess.run([build / "bin/kradm", "check", "--json"], capture_output=True, text=True,
                           check=False).stdout
    probes = {p["name"]: p["state"] for p in json.loads(found or '{"probes": []}')["probes"]}
    needed = ["network_namespaces"]
    if os.environ.get("KRG_TEST_AS") == "user":
        needed += ["user_namespaces"] + ([] if os.geteuid() == 0 else ["fuse_device"])
    for name in needed:
        if probes.get(name) == "lacking":
            lacks(name, "no virtual nodes for this user")
    unittest.main(verbosity=2)
