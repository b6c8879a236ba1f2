"""make -j8 of a real multi-directory project (iproute2: 209 objects in a dozen directories) on four
nodes: every object as in a native build, the compiles on all nodes, failures told.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import subprocess

import debian_source
import session_case
from session_case import NODES, NOBODY, SessionCase

# Notes the host of each compile, then becomes the compiler.
COMPILER = """#!/bin/bash
echo "$HOSTNAME" >>"$KRG_TEST_HOSTS"
exec gcc "$@"
"""


class BuildTest(SessionCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            cls.source = debian_source.fetch("iproute2", cls.work)
        except OSError as error:
            session_case.lacks("debian_sources", error)
        cls.compiler = cls.work / "cc-noted"
        cls.compiler.write_text(COMPILER)
        cls.compiler.chmod(0o755)
        cls.hosts = cls.work / "hosts"
        cls.hosts.touch()
        subprocess.run(["./configure"], cwd=cls.source, check=True, capture_output=True)
        if cls.as_user:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", cls.work], check=True)

    def make(self, *arguments):
        return ["make", "-C", self.source, "-j8", f"CC={self.compiler}", *arguments]

    def clean(self):
        subprocess.run(self.make("clean"), check=True, capture_output=True, env=self.environment())

    def objects(self):
        return {str(path.relative_to(self.source)): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in self.source.rglob("*.o")}

    def test_objects_are_those_of_a_native_build(self):
        env = {"KRG_TEST_HOSTS": str(self.hosts)}
        self.clean()
        natively = self.run_program(self.make(), timeout=240, check=True, env=env)
        native = self.objects()
        self.assertGreater(len(native), 200)
        self.clean()
        os.truncate(self.hosts, 0)
        result = self.krgrun(*self.make(), timeout=300, env=env)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertEqual(sorted(result.stderr.splitlines()), sorted(natively.stderr.splitlines()))
        self.assertEqual(self.objects(), native)
        counts = {}
        for host in self.hosts.read_text().split():
            counts[host] = counts.get(host, 0) + 1
        self.assertEqual(len(counts), NODES, counts)
        self.assertGreaterEqual(sum(counts.values()), len(native), counts)
        self.assertGreater(min(counts.values()), len(native) // (NODES * 4), counts)

    def test_a_compile_that_fails_fails_make(self):
        broken = self.source / "lib" / "utils.c"
        text = broken.read_text()
        try:
            broken.write_text(text + "\nthis is no C\n")
            native = self.run_program(self.make(), timeout=240, env={"KRG_TEST_HOSTS": str(self.hosts)})
            result = self.krgrun(*self.make(), timeout=240, env={"KRG_TEST_HOSTS": str(self.hosts)})
        finally:
            broken.write_text(text)
        self.assertEqual(result.returncode, native.returncode)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("utils.c", result.stderr)


if __name__ == "__main__":
    session_case.main()
