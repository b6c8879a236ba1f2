#!/usr/bin/env python3
"""What a cluster of virtual nodes costs: to start and end it, and while nothing happens in it.

usage: KRG_BUILD_DIR=build/dev python3 tests/perf/cluster_cost.py [--nodes 4] [--seconds 20]
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import time

BUILD = pathlib.Path(os.environ.get("KRG_BUILD_DIR", "build/dev")).resolve()
KRGRUN = BUILD / "bin/krgrun"


def processor_ticks():
    """User and system time of all krgd of this build so far, in clock ticks."""
    ticks = 0
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text() != "krgd\n" or str(BUILD) not in (folder / "cmdline").read_text():
                continue
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # ended meanwhile
            continue
        ticks += int(fields[11]) + int(fields[12])
    return ticks


def start_seconds(nodes):
    begin = time.monotonic()
    subprocess.run([KRGRUN, "-N", str(nodes), "true"], check=True)
    return time.monotonic() - begin


def idle_share(nodes, seconds):
    """Percent of one core that all krgd together use while the program sleeps."""
    program = subprocess.Popen([KRGRUN, "-N", str(nodes), "sleep", str(seconds + 60)])
    try:
        time.sleep(5)
        before = processor_ticks()
        time.sleep(seconds)
        return (processor_ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds * 100
    finally:
        program.terminate()
        program.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    starts = [start_seconds(options.nodes) for _ in range(5)]
    print(f"start, run true, end on {options.nodes} nodes: median {statistics.median(starts):.2f} s of {len(starts)}")
    print(f"idle: {idle_share(options.nodes, options.seconds):.2f} % of one core for {options.nodes} krgd together")


if __name__ == "__main__":
    main()
