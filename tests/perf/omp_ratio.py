"""OpenMP constructs under libkrgomp against the system's libgomp, in turn: goal <= 1.1 each.

usage: omp_ratio.py [--rounds N] [--threads LIST]      environment: KRG_BUILD_DIR
Each round runs both runtimes, the other one first each time; the figures are medians over the rounds of omp_overheads' own median of 15.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess


def overheads(program, library, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "LD_LIBRARY_PATH": library}
    run = subprocess.run([program], env=environment, check=True, capture_output=True, text=True, timeout=600)
    return {name: float(value) for name, value in (line.split() for line in run.stdout.splitlines())}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default="2")
    options = parser.parse_args()
    build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
    program = build / "test-bin/omp_overheads"
    libraries = {"libgomp": "", "libkrgomp": str(build / "libexec/kerrighed/omp")}
    for threads in options.threads.split(","):
        seen = {name: {} for name in libraries}
        for number in range(options.rounds):
            for name, library in list(libraries.items())[:: 1 if number % 2 == 0 else -1]:
                for construct, value in overheads(program, library, threads).items():
                    seen[name].setdefault(construct, []).append(value)
        print(f"{threads} threads      libgomp  libkrgomp  ratio   (us beyond the work)")
        for construct in seen["libgomp"]:
            native, ours = (statistics.median(seen[name][construct]) for name in libraries)
            ratio = f"{ours / native:5.2f}" if native > 0.01 else "    -"
            print(f"{construct:<15} {native:8.3f} {ours:10.3f}  {ratio}", flush=True)


if __name__ == "__main__":
    main()
