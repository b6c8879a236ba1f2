"""Large programs whose pages are saved while they run: what a version has is their memory at one instant, whatever they have done
to it meanwhile.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random
import re
import shutil
import signal
import subprocess
import time

import session_case
from checkpoint_case import CheckpointCase

# Saves the program that writes to its memory again and again, each time in a folder of its own, or as increments of what was
# written while it ran.
SAVES = """
krg_capset -d +CHECKPOINTABLE
"$1" $2 & writer=$!
until [ -e ready ]; do sleep 0.02; done
krg_checkpoint -o first $writer >>log && krg_checkpoint -o first $writer >>log || exit 3
for i in 1 2 3; do sleep 0.$((RANDOM % 10)); krg_checkpoint --full -o ckpt$i $writer >>log || exit 3; done
krg_checkpoint -o first $writer >>log || exit 3
touch saved; wait
"""

# Two of them, on two nodes, that are saved as one application.
FAMILY = """
for node in 1 0; do
    (mkdir in$node; cd in$node; exec "$1" $2) & writers="$writers $!"
    until [ -e in$node/ready ]; do sleep 0.02; done
done
krg_migrate ${writers% *} 1 && touch ready; wait
"""


class CheckpointLiveTest(CheckpointCase):
    def program(self):
        return str(self.build / "test-bin" / "programs" / "checkpoint_writer")

    def write(self, name, text):
        (self.work / name).write_text(text, encoding="ascii")

    def assert_right(self, done, told, about=None):
        """They write to the file that was their output."""
        self.assertEqual((done.returncode, (self.work / "out").read_text(encoding="ascii"), done.stderr), (0, told, ""), about)
        os.truncate(self.work / "out", 0)

    def is_live(self, folder):
        """Whether its pages lie before its tables."""
        shown = [subprocess.run(["h5dump", "-p", "-H", "-d", "/" + name, f"{folder}/v1.n0.h5"], cwd=self.work, capture_output=True, text=True,
                                timeout=30, check=True).stdout for name in ("pages", "ranges")]
        pages, ranges = (int(re.search(r"OFFSET (\d+)", one)[1]) for one in shown)
        return pages < ranges

    def wait_for_file_of(self, pattern, process):
        while not any(self.work.glob(pattern)):
            self.assertIsNone(process.poll(), self.errors())

    @staticmethod
    def wait_until_gone(pid):
        while os.path.exists(f"/proc/{pid}"):
            time.sleep(0.02)

    def save_often(self, arguments, some_stays):
        """Whether all is right after each restart."""
        self.write("saves", SAVES)
        process = self.start("-N", "1", "bash", "saves", self.program(), arguments)
        self.wait_for_file("saved", process)
        self.end(process)
        self.write("end", "")
        folders = ["ckpt1", "ckpt2", "ckpt3"]
        if shutil.which("h5dump") and some_stays:
            self.assertIn(True, [self.is_live(folder) for folder in folders])
        for folder, version in [(folder, 1) for folder in folders] + [("first", version) for version in (1, 2, 3)]:
            done = self.restart(f"--restart-version={version}", folder=folder)
            self.assert_right(done, "2 of 2\n", f"{folder} {version}")

    def test_one_that_writes_now_and_then(self):
        self.save_often("160 300", True)

    def test_one_that_writes_all_the_time(self):
        self.save_often("160 0", False)  # nothing stays as it was read

    def test_a_family_on_two_nodes(self):
        self.write("family", FAMILY)
        process = self.start("-N", "2", f"--checkpoint-dir={self.work / 'ckpt'}", "--caps=+CAN_MIGRATE", "bash", "family", self.program(),
                             "96 200 pages")
        self.wait_for_file("ready", process)
        self.save_and_kill(process)
        for folder in ("in0", "in1"):
            self.write(f"{folder}/end", "")
        done = self.restart("-N", "2")
        self.assert_right(done, "2 of 2\n2 of 2\n")

    def test_whatever_dies_the_last_version_is_whole(self):
        chance = random.Random(3)
        process = self.start("-N", "2", f"--checkpoint-dir={self.work / 'ckpt'}", self.program(), "160", "300")
        self.wait_for_file("ready", process)
        for number in range(4):
            # A fresh cluster has written nothing before: so all pages are saved, while it runs.
            self.wait_until_it_takes_signals(process)
            before = len(self.versions())
            process.send_signal(signal.SIGUSR1)
            self.wait_for_version(before + 1, process)
            self.end(process)
            process = self.start("-N", "2", f"--checkpoint-dir={self.work / 'ckpt'}", f"--restart={self.work / 'ckpt'}")
            self.wait_until_it_takes_signals(process)
            process.send_signal(signal.SIGUSR1)
            self.wait_for_file_of("ckpt/v*.n0.h5.tmp", process)  # that it writes into while the program runs
            krgd = self.krgd_of(process, 0)
            time.sleep(chance.uniform(0, 0.1))
            os.kill(krgd if number % 2 else process.pid, signal.SIGKILL)
            process.wait(30)
            self.wait_until_gone(krgd)
            last = self.versions()[-1]
            shown = self.run_program(["krg_checkpoint", "verify", "ckpt", str(last)], check=True).stdout
            self.assertIn(f"version {last}: whole", shown)
            process = self.start("-N", "2", f"--checkpoint-dir={self.work / 'ckpt'}", f"--restart={self.work / 'ckpt'}")
            self.wait_until_it_takes_signals(process)
        # The next version takes away what was left of those that came to nothing.
        self.save_and_kill(process)
        self.assertEqual(list((self.work / "ckpt").glob("*.tmp")), [])
        self.write("end", "")
        done = self.restart("-N", "1")
        self.assert_right(done, "2 of 2\n")


if __name__ == "__main__":
    session_case.main()
