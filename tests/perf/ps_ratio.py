"""What `ps aux` and its like cost in a session against native, over the same processes: goal <= 1.5.

usage: ps_ratio.py [--processes N] [--rounds N]      environment: KRG_BUILD_DIR
Both cases run the tool in a PID namespace with N waiting programs; in the session they run on four
virtual nodes, so that three quarters are remote. Medians and best rounds of the wall time (on a machine
that does other work too, the best are the ones to believe).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

TOOLS = {"ps aux": ["ps", "aux"], "top -b -n1": ["top", "-b", "-n1"], "pgrep": ["pgrep", "sleep"],
         "cat /proc/cpuinfo": ["cat", "/proc/cpuinfo"]}
DROP = "krg_capset -d -DISTANT_FORK -e -DISTANT_FORK >/dev/null 2>&1;"  # the tools themselves run here


def measure(rounds):
    """Inside: milliseconds of each tool, as JSON."""
    times = {name: [] for name in TOOLS}
    for _ in range(rounds):
        for name, command in TOOLS.items():
            start = time.monotonic()
            subprocess.run(command, stdout=subprocess.PIPE, check=True)
            times[name].append((time.monotonic() - start) * 1e3)
    print(json.dumps(times))


def run(prefix, processes, rounds):
    script = (f"for i in $(seq {processes}); do sleep 600 & done; sleep 1; {DROP} "
              f"'{sys.executable}' '{__file__}' --inside --rounds {rounds}; kill $(jobs -p)")
    out = subprocess.run([*prefix, "bash", "-c", script], stdout=subprocess.PIPE, text=True, check=False,
                         timeout=300, stderr=subprocess.DEVNULL).stdout
    return json.loads(out)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        return measure(arguments.rounds)
    tools = pathlib.Path(os.environ["KRG_BUILD_DIR"]) / "bin"
    os.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    native = run(["unshare", "-pf", "--mount-proc"], arguments.processes, arguments.rounds)
    here = run([tools / "krgrun", "-N", "4"], arguments.processes, arguments.rounds)
    spread = run([tools / "krgrun", "-N", "4", "--caps=+DISTANT_FORK"], arguments.processes, arguments.rounds)
    for name in TOOLS:
        line = f"{name:<18}"
        for title, how in (("median", statistics.median), ("best", min)):
            base = how(native[name])
            line += (f"  {title}: native {base:.1f} ms, all here {how(here[name]) / base:.2f}, "
                     f"spread {how(spread[name]) / base:.2f}")
        print(line)
    return None


if __name__ == "__main__":
    main()
