"""A barrier of an OpenMP team over nodes, one thread on each, against MPI_Barrier of as many ranks by TCP, in turn: goal <= 2 on 4 nodes.

usage: barrier_ratio.py [--rounds N] [--nodes LIST]      environment: KRG_BUILD_DIR
MPI's ranks give the processor away where there are more of them than cores (mpi_yield_when_idle), as ours do.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess


def measured(command, environment):
    done = subprocess.run([str(word) for word in command], env=environment, check=True, capture_output=True, text=True, timeout=600)
    return float(done.stdout.split()[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", default="2,4")
    options = parser.parse_args()
    build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
    print(f"nodes  OpenMP over nodes  MPI_Barrier  ratio   (us, medians of {options.rounds} runs; load {os.getloadavg()[0]:.1f})")
    for nodes in options.nodes.split(","):
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(measured([build / "bin/krgrun", "-N", nodes, "-q", "--omp=krg", build / "test-bin/omp_barrier"],
                                 {**os.environ, "OMP_NUM_THREADS": nodes}))
            theirs.append(measured(["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", nodes, "--mca", "pml", "ob1",
                                    "--mca", "btl", "self,tcp", "--mca", "mpi_yield_when_idle", "1", build / "test-bin/mpi_barrier"],
                                   {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}))
        mine, mpi = statistics.median(ours), statistics.median(theirs)
        print(f"{nodes:>5} {mine:18.1f} {mpi:12.1f} {mine / mpi:6.2f}", flush=True)


if __name__ == "__main__":
    main()
