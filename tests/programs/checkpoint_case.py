"""CheckpointCase: programs that are saved by krgrun, killed, and go on in a fresh cluster.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import shutil
import signal
import subprocess
import time

from session_case import SessionCase


class CheckpointCase(SessionCase):
    restart_options = ()
    restart_tells = ""  # on stderr

    def setUp(self):
        self.random = random.Random(self.id())
        for old in self.work.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()

    def start(self, *arguments, **options):
        """A program under krgrun in a cluster of its own."""
        out, err = (open(self.work / name, "ab") for name in ("out", "err"))
        for file in (out, err):
            os.fchown(file.fileno(), *self.owner())
        with out, err:
            process = subprocess.Popen(self.command(["krgrun", "--cluster=none", *arguments]), cwd=self.work, stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=err, env=self.environment(), start_new_session=True, **options)
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def versions(self, folder="ckpt"):
        path = self.work / folder
        return sorted(int(f.name[1:-3]) for f in path.glob("v*.h5") if f.name[1:-3].isdigit()) if path.exists() else []

    def errors(self):
        return (self.work / "err").read_text(errors="replace")

    def wait_for_file(self, name, process):
        while not (self.work / name).exists():
            self.assertIsNone(process.poll(), self.errors())
            time.sleep(0.02)

    def wait_for_version(self, number, process, folder="ckpt"):
        for _ in range(600):
            if number in self.versions(folder):
                return
            self.assertIsNone(process.poll(), "it ended before: " + self.errors())
            time.sleep(0.05)
        self.fail("no checkpoint came: " + self.errors())

    def wait_until_it_takes_signals(self, process):
        """SIGUSR1 ends a krgrun that has just been started."""
        while True:
            self.assertIsNone(process.poll(), self.errors())
            with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                fields = dict(line.split(":", 1) for line in status)
            is_krgrun = fields["Name"].strip() == "krgrun"  # and not what starts it as another user
            if is_krgrun and (int(fields["SigBlk"], 16) | int(fields["SigCgt"], 16)) >> (signal.SIGUSR1 - 1) & 1:
                return
            time.sleep(0.02)

    def save_and_kill(self, process, folder="ckpt"):
        """A checkpoint at the signal for it, then the end of the whole cluster."""
        before = self.versions(folder)
        self.wait_until_it_takes_signals(process)
        process.send_signal(signal.SIGUSR1)
        self.wait_for_version((before or [0])[-1] + 1, process, folder)
        self.end(process)

    def restart(self, *options, folder="ckpt", timeout=120, **more):
        return self.run_program(["krgrun", "--cluster=none", f"--restart={self.work / folder}", *options], timeout=timeout, **more)

    def interrupted(self, *command, times=2, nodes=(1,), caps=(), ready=None):
        """The output of a program that is saved, killed and restarted `times` times, each time on the next number of nodes.
        `ready`: a file that it makes when it may be saved for the first time. Before the last start there is a file "end": a
        program that waits for it cannot come to its end before, however fast the machine."""
        options = [f"--checkpoint-dir={self.work / 'ckpt'}"]
        process = self.start("-N", str(nodes[0]), *options, *caps, "sh", "-c", "exec \"$@\" >output 2>&1", "sh", *command)
        if ready:
            self.wait_for_file(ready, process)
        for number in range(times):
            time.sleep(self.random.uniform(0.3, 1.2))
            self.save_and_kill(process)
            if number + 1 < times:
                process = self.start("-N", str(nodes[(number + 1) % len(nodes)]), *options, f"--restart={self.work / 'ckpt'}", *self.restart_options)
        (self.work / "end").touch()
        done = self.restart("-N", str(nodes[times % len(nodes)]), *self.restart_options)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", self.restart_tells), (self.work / "output").read_text())
        return (self.work / "output").read_text()

    def native(self, *command):
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=self.work).stdout

    def compare(self, *command, **options):
        """interrupted() prints what the program does natively, where "end" is there from the beginning."""
        before = set(self.work.iterdir())
        (self.work / "end").touch()
        expected = self.native(*command)
        for made in set(self.work.iterdir()) - before:
            made.unlink()
        self.assertEqual(self.interrupted(*command, ready="ready", **options), expected)
