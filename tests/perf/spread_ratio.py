"""OpenMP programs on several nodes against one node, each node held to one core, in turn: goals EP >= 1.8 times as fast on 2 nodes, none of the
NAS programs of class W more than 5 times as slow.

usage: spread_ratio.py [--rounds N] [--nodes LIST] [--pattern REGEX] [--stats] PROGRAM...      environment: KRG_BUILD_DIR
--pattern: what the program says of its own time in seconds, in its first group; a program that says nothing of it is timed as a whole.
A program that fails, or says that its verification did, is told and not counted. --stats: one more run on the most nodes, whose faults, fault
waits and team waits (barriers, chunks, locks) are told by thread, beside the time that is left.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import time

FAILED = re.compile(r"verification\s*=?\s*(unsuccessful|failed)", re.IGNORECASE)


def run(krgrun, nodes, program, pattern, *options):
    """Seconds, and what krgrun said; no seconds when it failed."""
    began = time.monotonic()
    done = subprocess.run([krgrun, "-N", str(nodes), "-c", "1", "-q", "--omp=krg", *options, *program.split()],
                          env={key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"},
                          capture_output=True, text=True, timeout=1800)
    whole = time.monotonic() - began
    if done.returncode != 0 or FAILED.search(done.stdout):
        print(f"{program} on {nodes}: failed ({done.returncode}) {done.stderr[-300:]}")
        return None, done.stderr
    said = re.search(pattern, done.stdout, re.IGNORECASE)
    return (float(said.group(1)) if said else whole), done.stderr


def tell_waits(krgrun, nodes, program, pattern):
    seconds, said = run(krgrun, nodes, program, pattern, "--stats=json")
    for process in json.loads(said.splitlines()[-1]) if seconds else []:
        for thread in process["threads"]:
            print(f"    thread {thread['tid']}: {thread['faults']} faults, {thread['fault_ms'] / 1000:.2f} s; {thread['team_calls']} team calls, "
                  f"{thread['team_ms'] / 1000:.2f} s; of {seconds:.2f} s that the program says")
        for part in process["parallel"][:6]:
            where = part["region"].get("line") or part["region"]["name"] or "outside of regions"
            behind = part["barrier"].get("line") or part["barrier"]["name"]
            print(f"      {where}{f', behind {behind}' if behind else ''}: {part['begun']} times, {part['faults']} faults, {part['fault_ms'] / 1000:.2f} s, "
                  f"team calls {part['team_ms'] / 1000:.2f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nodes", default="2")
    parser.add_argument("--pattern", default=r"(?:time in seconds|elapsed time)\s*[=:]\s*([\d.]+)")
    parser.add_argument("--stats", action="store_true")
    parser.add_argument("programs", nargs="+", metavar="PROGRAM")
    options = parser.parse_args()
    krgrun = str(pathlib.Path(os.environ["KRG_BUILD_DIR"]) / "bin/krgrun")
    counts = [1] + [int(count) for count in options.nodes.split(",")]
    for program in options.programs:
        seen = {count: [] for count in counts}
        for _ in range(options.rounds):
            for count in counts:
                seconds, _ = run(krgrun, count, program, options.pattern)
                if seconds is not None:
                    seen[count].append(seconds)
        alone = statistics.median(seen[1]) if seen[1] else None
        text = f"{pathlib.Path(program.split()[0]).name}: one node {alone} s"
        for count in counts[1:]:
            if seen[count] and alone:
                middle = statistics.median(seen[count])
                text += f"; {count} nodes {middle:.2f} s ({', '.join(f'{one:.2f}' for one in seen[count])}), {alone / max(middle, 1e-3):.2f} times as fast"
        print(f"{text}; load {os.getloadavg()[0]:.1f}", flush=True)
        if options.stats:
            tell_waits(krgrun, counts[-1], program, options.pattern)


if __name__ == "__main__":
    main()
