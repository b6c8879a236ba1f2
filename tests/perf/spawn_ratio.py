"""fork + exec placed here and elsewhere against native, in one run: goals <= 1.3 and <= 3.

usage: spawn_ratio.py [--count N] [--rounds N]      environment: KRG_BUILD_DIR
The four cases run in turn, ROUNDS times; the ratios are those of the medians and of the best rounds (on
a machine that does other work too, the best are the ones to believe).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess


def cases(build):
    cost = build / "test-bin/spawn_cost"
    krgrun = build / "bin/krgrun"
    return {
        "native": [cost],
        "krgrun, no capability": [krgrun, "-N", "2", cost],
        "krgrun, placed here": [krgrun, "-N", "1", "--caps=+DISTANT_FORK", cost],
        "krgrun, placed elsewhere": [krgrun, "-N", "2", "--caps=+DISTANT_FORK", cost, "busy"],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    all_cases = cases(pathlib.Path(os.environ["KRG_BUILD_DIR"]))
    times = {name: [] for name in all_cases}
    elsewhere = {name: 0 for name in all_cases}
    for _ in range(arguments.rounds):
        for name, command in all_cases.items():
            out = subprocess.run([*map(str, command), str(arguments.count)], check=True, capture_output=True,
                                 text=True, timeout=120).stdout.split()
            times[name].append(float(out[0]))
            elsewhere[name] += int(out[1])
    native, native_best = statistics.median(times["native"]), min(times["native"])
    total = arguments.count * arguments.rounds
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<26} median {median:7.0f} us ratio {median / native:5.2f}   "
              f"best {min(values):7.0f} us ratio {min(values) / native_best:5.2f}   elsewhere {elsewhere[name]} of {total}")


if __name__ == "__main__":
    main()
