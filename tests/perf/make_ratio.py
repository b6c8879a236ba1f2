"""make -j8 of iproute2 on four virtual nodes of this machine against native: goal <= 1.25.

usage: make_ratio.py [--rounds N]      environment: KRG_BUILD_DIR
Native and krgrun builds alternate, each from a clean tree; the ratio is that of the medians.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "programs"))
import debian_source  # noqa: E402


def timed_build(prefix, source):
    make = ["make", "-C", source, "-j8"]
    subprocess.run([*make, "clean"], check=True, capture_output=True)
    start = time.monotonic()
    subprocess.run([*prefix, *make], check=True, capture_output=True, timeout=600)
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    krgrun = pathlib.Path(os.environ["KRG_BUILD_DIR"]) / "bin/krgrun"
    prefixes = {"native": [], "krgrun": [krgrun, "-N", "4", "--caps=+DISTANT_FORK"]}
    times = {name: [] for name in prefixes}
    with tempfile.TemporaryDirectory(prefix="krg-make-") as folder:
        source = debian_source.fetch("iproute2", folder)
        subprocess.run(["./configure"], cwd=source, check=True, capture_output=True)
        timed_build([], source)  # fills the caches
        for _ in range(rounds):
            for name, prefix in prefixes.items():
                times[name].append(timed_build(prefix, source))
                print(f"{name:<7} {times[name][-1]:6.2f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"median: native {medians['native']:.2f} s, krgrun {medians['krgrun']:.2f} s, "
          f"ratio {medians['krgrun'] / medians['native']:.2f}")


if __name__ == "__main__":
    main()
