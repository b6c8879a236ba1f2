"""One program's constructs with 1, 2, 4 and 8 threads under libkrgomp; with 1 and 2 under the system's libgomp, which shows that
what the program expects is what OpenMP programs get today.

usage: constructs_test.py PROGRAM      environment: KRG_BUILD_DIR
SPDX-License-Identifier: GPL-2.0-or-later
"""
import sys

import libraries

SETTINGS = {"OMP_CANCELLATION": "true", "OMP_MAX_TASK_PRIORITY": "100"}
VARIANTS = [{}, {"OMP_WAIT_POLICY": "passive"}, {"OMP_PLACES": "cores", "OMP_PROC_BIND": "close"},
            {"OMP_DYNAMIC": "false", "OMP_STACKSIZE": "4M", "OMP_SCHEDULE": "guided,4"}]


def main():
    program = sys.argv[1]
    runs = [(False, threads, {}) for threads in (1, 2)]
    runs += [(True, threads, {"KRG_TEST_FORK": "1"}) for threads in (1, 2, 4, 8)]
    runs += [(True, 4, variant) for variant in VARIANTS[1:]]
    failed = False
    for ours, threads, variant in runs:
        done = libraries.run(program, ours=ours, OMP_NUM_THREADS=str(threads), **SETTINGS, **variant)
        if done.returncode == 0:
            continue
        failed = True
        print(f"{program}, {threads} threads, {'libkrgomp' if ours else 'libgomp'}, {variant}: status {done.returncode}")
        print(done.stderr[:4000])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
