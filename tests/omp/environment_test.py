"""OMP_* variables mean to libkrgomp what they mean to libgomp: both print the same with OMP_DISPLAY_ENV, and bind alike.

environment: KRG_BUILD_DIR
SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import sys
import unittest

import libraries

CASES = [
    {},
    {"OMP_NUM_THREADS": "4,3,2"},
    {"OMP_NUM_THREADS": " 4 , 2 ", "OMP_DYNAMIC": "TRUE", "OMP_NESTED": "true"},
    {"OMP_SCHEDULE": "static"},
    {"OMP_SCHEDULE": "static,7"},
    {"OMP_SCHEDULE": "guided , 3"},
    {"OMP_SCHEDULE": "monotonic:dynamic,5"},
    {"OMP_SCHEDULE": "nonmonotonic:static"},
    {"OMP_SCHEDULE": "auto"},
    {"OMP_MAX_ACTIVE_LEVELS": "5", "OMP_THREAD_LIMIT": "7"},
    {"OMP_STACKSIZE": "300k"},
    {"OMP_STACKSIZE": "2 M"},
    {"OMP_STACKSIZE": "2000"},
    {"OMP_WAIT_POLICY": "active"},
    {"OMP_CANCELLATION": "true", "OMP_MAX_TASK_PRIORITY": "9", "OMP_NUM_TEAMS": "6", "OMP_TEAMS_THREAD_LIMIT": "2"},
    {"OMP_PROC_BIND": "spread,close", "OMP_PLACES": "{0},{1}"},
    {"OMP_PROC_BIND": "true"},
    {"OMP_PLACES": "threads"},
    {"OMP_PLACES": "{0:2}"},
    {"OMP_PLACES": "{0}:2:1"},
    {"GOMP_CPU_AFFINITY": "1 0"},
    {"OMP_ALLOCATOR": "omp_low_lat_mem_alloc", "OMP_TARGET_OFFLOAD": "disabled", "OMP_DEFAULT_DEVICE": "3"},
    {"OMP_AFFINITY_FORMAT": "%n of %N", "OMP_DISPLAY_AFFINITY": "true"},
]

INVALID = [{"OMP_NUM_THREADS": "0"}, {"OMP_NUM_THREADS": "four"}, {"OMP_SCHEDULE": "never"}, {"OMP_PROC_BIND": "maybe"},
           {"OMP_STACKSIZE": "3X"}, {"OMP_DYNAMIC": "5"}, {"OMP_PLACES": "{0"}, {"OMP_WAIT_POLICY": "angry"}]


def displayed(ours, variables):
    """The lines between BEGIN and END, without those that only one of the two has."""
    text = libraries.run("omp_foreign", ours=ours, OMP_DISPLAY_ENV="true", **variables).stderr
    lines = re.findall(r"^ {2}(?:\[host\] )?(\w+) = '(.*)'$", text, re.MULTILINE)
    return {name: value for name, value in lines if not name.startswith(("GOMP_", "KRG_"))}


class EnvironmentTest(unittest.TestCase):
    maxDiff = None

    def test_what_is_displayed(self):
        for variables in CASES:
            with self.subTest(variables):
                native = displayed(False, variables)
                self.assertGreater(len(native), 15)
                self.assertEqual(native, displayed(True, variables))

    def test_wrong_values_are_told_and_passed_over(self):
        for variables in INVALID:
            with self.subTest(variables):
                done = libraries.run("omp_foreign", ours=True, **variables)
                self.assertEqual(done.returncode, 0)
                self.assertIn("Invalid value for environment variable " + next(iter(variables)), done.stderr)

    def test_affinity_is_displayed_by_each_thread(self):
        done = libraries.run("omp_foreign", ours=True, OMP_DISPLAY_AFFINITY="true", OMP_NUM_THREADS="3",
                             OMP_AFFINITY_FORMAT="member %n of %N")
        self.assertEqual(sorted(re.findall(r"member \d of \d", done.stderr)),
                         ["member 0 of 3", "member 1 of 3", "member 2 of 3"])

    def test_thread_limit(self):
        done = libraries.run("omp_foreign", ours=True, OMP_NUM_THREADS="8", OMP_THREAD_LIMIT="3")
        self.assertIn("3 threads", done.stdout)


if __name__ == "__main__":
    sys.exit(unittest.main())
