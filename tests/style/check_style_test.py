#!/usr/bin/env python3
"""The checkers of this repository must fail on what they forbid: each rule on good and bad samples.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def load(path):
    """A script as a module, whatever its file name ends in."""
    loader = importlib.machinery.SourceFileLoader(path.stem.replace("-", "_"), str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


check_style = load(REPOSITORY / "tests/style/check_style.py")
check_skips = load(REPOSITORY / "scripts/check-skips")

SPDX = "// SPDX-License-Identifier: GPL-2.0-or-later\n"


class StyleRules(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.root = pathlib.Path(self.folder.name).resolve()
        (self.root / ".clang-format").write_text((REPOSITORY / ".clang-format").read_text())
        self.write("runtime/src/good.cpp", SPDX + '#include "krg/runtime/types.h"\n')

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def faults(self, rule):
        return check_style.RULES[rule](self.root)

    def test_good_tree_passes_every_rule(self):
        self.write("runtime/include/krg/runtime/types.h", SPDX + "#pragma once\n")
        self.write("procmgr/src/a.cpp", SPDX + '#include "a.h"\n\n#include "krg/shmem/ids.h"\n')
        self.write("procmgr/CMakeLists.txt", "krg_library(procmgr PUBLIC krg::shmem)\n")
        for rule in check_style.RULES:
            self.assertEqual(self.faults(rule), [], rule)

    def test_format(self):
        self.write("runtime/src/bad.cpp", SPDX + "int  f( ) {return 1 ;}\n")
        self.assertTrue(self.faults("format"))

    def test_format_fails_when_it_finds_nothing_to_check(self):
        (self.root / "runtime/src/good.cpp").unlink()
        self.assertTrue(self.faults("format"))

    def test_include_upwards(self):
        self.write("runtime/src/bad.cpp", SPDX + '#include "krg/procmgr/pid_range.h"\n')
        self.assertEqual(len(self.faults("includes")), 1)

    def test_include_sideways(self):
        self.write("checkpoint/src/bad.cpp", SPDX + '#include "krg/kdfs/store.h"\n')
        self.assertEqual(len(self.faults("includes")), 1)

    def test_include_of_a_private_header(self):
        self.write("launcher/src/bad.cpp", SPDX + '#include "../../procmgr/src/x.h"\n')
        self.assertEqual(len(self.faults("includes")), 1)

    def test_include_of_an_unknown_folder(self):
        self.write("launcher/src/bad.cpp", SPDX + '#include "krg/nonsense/x.h"\n')
        self.assertEqual(len(self.faults("includes")), 1)

    def test_link_upwards(self):
        self.write("shmem/CMakeLists.txt", "target_link_libraries(krg_shmem PUBLIC krg::procmgr)\n")
        self.assertEqual(len(self.faults("includes")), 1)

    def test_header_rules(self):
        self.write("runtime/include/krg/runtime/bad.h", "#define KRG_MAX(a, b) a\n")
        self.assertEqual(len(self.faults("headers")), 3)

    def test_length(self):
        self.write("runtime/src/long.cpp", SPDX + "//\n" * check_style.MOST_LINES)
        self.assertEqual(len(self.faults("lengths")), 1)


class SkippedTests(unittest.TestCase):
    LACKING = {"fuse_device": True, "userfaultfd": False}

    def test_skip_for_what_is_lacking_is_right(self):
        self.assertIsNone(check_skips.judge("lacks fuse_device: /dev/fuse is not there", self.LACKING))

    def test_skip_for_what_is_there_is_wrong(self):
        self.assertIsNotNone(check_skips.judge("lacks userfaultfd: no", self.LACKING))

    def test_skip_without_a_known_probe_is_wrong(self):
        self.assertIsNotNone(check_skips.judge("lacks patience", self.LACKING))
        self.assertIsNotNone(check_skips.judge("not today", self.LACKING))
        self.assertIsNotNone(check_skips.judge("disabled", self.LACKING))

    def test_result_files_are_read(self):
        with tempfile.TemporaryDirectory() as folder:
            gtest = pathlib.Path(folder) / "a.xml"
            gtest.write_text(
                '<testsuites><testsuite name="S"><testcase classname="S" name="T" status="run" '
                'result="skipped"><skipped message="a.cpp:7&#x0A;lacks fuse_device: x"/></testcase>'
                '<testcase classname="S" name="DISABLED_D" status="notrun" result="suppressed"/>'
                '<testcase classname="S" name="U" status="run" result="completed"/>'
                "</testsuite></testsuites>")
            self.assertEqual(list(check_skips.gtest_skips(gtest)),
                             [("S.T", "lacks fuse_device: x"), ("S.DISABLED_D", "disabled")])
            ctest = pathlib.Path(folder) / "ctest.junit"
            ctest.write_text(
                '<testsuite><testcase name="one" status="notrun"><skipped message="x"/>'
                "<system-out>hello\nlacks slurm: not installed\n</system-out></testcase>"
                '<testcase name="two" status="run"/></testsuite>')
            self.assertEqual(list(check_skips.ctest_skips(ctest)),
                             [("one", "lacks slurm: not installed")])


if __name__ == "__main__":
    unittest.main()
