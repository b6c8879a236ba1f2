"""libkrgomp exports exactly the functions of the installed libgomp.so.1, under the same versions and as its default or not.

environment: KRG_BUILD_DIR
SPDX-License-Identifier: GPL-2.0-or-later
"""
import subprocess
import sys
import unittest

import libraries


def exported(library):
    listed = subprocess.run(["readelf", "-W", "--dyn-syms", library], capture_output=True, text=True, check=True).stdout
    fields = (line.split() for line in listed.splitlines())
    return {line[7] for line in fields if len(line) == 8 and line[3] == "FUNC" and line[6] != "UND"}


def dynamic(library):
    return subprocess.run(["readelf", "-W", "-d", library], capture_output=True, text=True, check=True).stdout


class AbiTest(unittest.TestCase):
    ours = libraries.OURS / "libgomp.so.1"

    def test_same_symbols_and_versions(self):
        native = exported(libraries.system_library())
        self.assertGreater(len(native), 400)
        self.assertEqual(native, exported(self.ours))

    def test_name_and_needs(self):
        text = dynamic(self.ours)
        self.assertIn("soname: [libgomp.so.1]", text)
        # Programs in C must not get a C++ library by it.
        self.assertNotIn("libstdc++", text)
        self.assertNotIn("libhwloc", text)


if __name__ == "__main__":
    sys.exit(unittest.main())
