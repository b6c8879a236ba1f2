"""redirections.sh natively and with every command placed on the least loaded of four nodes: the same output.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import subprocess

import session_case
from session_case import BUSY, SessionCase

SCRIPT = pathlib.Path(__file__).with_name("redirections.sh")


def cases_of(output):
    """Name of a case -> what it wrote."""
    return dict(part.split("\n", 1) for part in output.split("== ")[1:])


class RedirectionsTest(SessionCase):
    def test_every_case_is_as_on_one_machine(self):
        native = subprocess.run(["bash", SCRIPT, self.work / "native"], env=self.environment(), text=True, timeout=120,
                                stdin=subprocess.DEVNULL, capture_output=True, check=True)
        placed = self.krgrun("bash", "-c", f"{BUSY}; sleep 0.3; bash {SCRIPT} {self.work}/placed", timeout=180)
        self.assertEqual(placed.returncode, 0, placed.stderr)
        expected, found = cases_of(native.stdout), cases_of(placed.stdout)
        self.assertGreater(len(expected), 60)
        for name, output in expected.items():
            with self.subTest(name):
                self.assertEqual(found.get(name), output)


if __name__ == "__main__":
    session_case.main()
