"""FIFOs, which are FIFOs with their names after a restart.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import subprocess

import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"

# Nobody has written to "control" when it is saved, what has been written to "work" is still there, and who wrote to "ended" has gone.
FIFOS = r"""
import os, select, stat, time
for name in ("control", "work", "ended"): os.mkfifo(name); os.chmod(name, 0o620)
def has_come(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return [{select.POLLIN: "in", select.POLLHUP: "hup"}.get(events, events) for _, events in poll.poll(0)]
control = os.open("control", os.O_RDONLY | os.O_NONBLOCK)
ended = os.open("ended", os.O_RDONLY | os.O_NONBLOCK)
os.close(os.open("ended", os.O_WRONLY))
work = os.open("work", os.O_RDWR)
os.write(work, b"before")
open("ready", "w").close()
while not os.path.exists("end"): time.sleep(0.01)
print(has_come(control), has_come(work), has_come(ended))
for name, fd in ("control", control), ("work", work):
    print(stat.filemode(os.stat(name).st_mode), os.path.samestat(os.stat(name), os.fstat(fd)))
open("going", "w").close()
for turn in range(3000):
    if has_come(control): break
    time.sleep(0.01)
print(os.read(control, 99))
read = b""
while not read.endswith(b"after\n"): read += os.read(work, 99)
print(read)
"""


TOLD = ["[] ['in'] ['hup']", "prw--w---- True", "prw--w---- True", "b'told\\n'", "b'beforeafter\\n'"]


class CheckpointFifosTest(CheckpointCase):
    def save_program(self):
        (self.work / "work.py").write_text(FIFOS, encoding="ascii")
        process = self.start("-N", "1", "--checkpoint-dir=ckpt", CAPS, "sh", "-c", "exec /usr/bin/python3 work.py >output 2>&1")
        self.wait_for_file("ready", process)
        self.save_and_kill(process)

    def restarted(self, before_restart):
        """What the program prints that is saved, killed, restarted, and written to by others then."""
        self.save_program()
        before_restart()
        (self.work / "end").touch()
        outside = subprocess.Popen(self.command(["timeout", "60", "sh", "-c", "until [ -e going ]; do sleep 0.02; done; echo told >control; echo after >work"]), cwd=self.work)
        self.addCleanup(outside.wait)
        self.addCleanup(outside.kill)
        done = self.restart("-N", "1")
        self.assertEqual((done.returncode, done.stderr), (0, ""), (self.work / "output").read_text())
        return (self.work / "output").read_text().splitlines()

    def test_others_find_them_by_their_names(self):
        self.assertEqual(self.restarted(lambda: None), TOLD)

    def test_one_that_is_gone_is_made_anew(self):
        self.assertEqual(self.restarted((self.work / "work").unlink), TOLD)

    def test_another_file_of_that_name_is_told(self):
        self.save_program()
        (self.work / "work").unlink()
        (self.work / "work").write_text("", encoding="ascii")
        os.chown(self.work / "work", *self.owner())
        done = self.restart("-N", "1")
        self.assertEqual(done.returncode, 125)
        self.assertIn(f"{self.work}/work is no FIFO any more", done.stderr)


if __name__ == "__main__":
    session_case.main()
