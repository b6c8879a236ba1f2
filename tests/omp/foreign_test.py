"""Programs that need functions of libgomp which libkrgomp does not have: they get the system's, and are told which one it was.

environment: KRG_BUILD_DIR
SPDX-License-Identifier: GPL-2.0-or-later
"""
import sys
import unittest

import libraries

PLUGIN = str(libraries.BUILD / "test-bin/libomp_foreign_plugin.so")


class ForeignTest(unittest.TestCase):
    def test_needed_from_the_start(self):
        done = libraries.run("omp_needs_foreign", ours=True, OMP_NUM_THREADS="3")
        self.assertEqual(done.stdout, "3 threads\n1 OpenACC devices\n", done.stderr)
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stderr, "omp_needs_foreign needs acc_get_num_devices, .* the system's libgomp")

    def test_other_folders_of_the_search_path_stay(self):
        done = libraries.run("omp_needs_foreign", ours=False, OMP_NUM_THREADS="2",
                             LD_LIBRARY_PATH=f"/nowhere:{libraries.OURS}:/tmp")
        self.assertEqual(done.stdout, "2 threads\n1 OpenACC devices\n", done.stderr)
        self.assertIn("acc_get_num_devices", done.stderr)

    def test_needed_later(self):
        done = libraries.run("omp_foreign", PLUGIN, ours=True, OMP_NUM_THREADS="3")
        self.assertEqual(done.stdout, "3 threads\n1 OpenACC devices\n6 threads in all\n", done.stderr)
        self.assertIn("acc_get_num_devices is not offered by libkrgomp", done.stderr)

    def test_without_need_nothing_is_said(self):
        done = libraries.run("omp_foreign", ours=True, OMP_NUM_THREADS="2")
        self.assertEqual((done.stdout, done.stderr), ("2 threads\n", ""))


if __name__ == "__main__":
    sys.exit(unittest.main())
