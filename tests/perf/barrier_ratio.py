"""A barrier of an OpenMP team over nodes, one thread on each, against MPI_Barrier of as many ranks, in turn: goal <= 2 on 4 nodes.

usage: barrier_ratio.py [--rounds N] [--nodes LIST] [--pinned]      environment: KRG_BUILD_DIR; root
Both talk by TCP over virtual networks of the same kind: a network namespace for each node, on a bridge. MPI's ranks give the processor
away where there are more of them than cores (mpi_yield_when_idle), as ours do. --pinned: node i and its program, or rank i, is held to
core i of those that there are, in turn, so that it does not depend on where the scheduler puts whom.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

INSIDE = "KRG_BARRIER_NETWORK"
BRIDGE = "198.18.255.254/16"
TRIES, MPI_SECONDS = 5, 20
REMOTE_SHELL = """#!/bin/sh
host=$1; shift
exec ip netns exec "$host" sh -c "$*"
"""
RANK = """#!/bin/sh
exec taskset -c $((OMPI_COMM_WORLD_RANK % $(nproc))) "$@"
"""


def output(command, environment, seconds=600):
    done = subprocess.run([str(word) for word in command], env=environment, check=True, capture_output=True, text=True, timeout=seconds)
    return done.stdout


def make_machines(count):
    """Network namespaces, each named by its address; in namespaces of this process's own, with which they end."""
    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    addresses = [f"198.18.0.{i + 1}" for i in range(count)]
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    ip("link", "add", "nodes", "type", "bridge")
    ip("address", "add", BRIDGE, "dev", "nodes")
    for link in ("lo", "nodes"):
        ip("link", "set", link, "up")
    for i, address in enumerate(addresses):
        ip("netns", "add", address)
        ip("link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", address)
        ip("link", "set", f"port{i}", "master", "nodes", "up")
        ip("-n", address, "address", "add", f"{address}/16", "dev", "eth0")
        for link in ("lo", "eth0"):
            ip("-n", address, "link", "set", link, "up")
    return addresses


def measure_mpi(build, count, pinned):
    addresses = make_machines(count)
    with tempfile.TemporaryDirectory() as folder:
        scripts = {}
        for name, text in (("remote-shell", REMOTE_SHELL), ("rank", RANK)):
            scripts[name] = pathlib.Path(folder) / name
            scripts[name].write_text(text)
            scripts[name].chmod(0o755)
        command = ["mpirun", "--host", ",".join(f"{address}:1" for address in addresses), "--bind-to", "none", "-n", count]
        for name, value in (("plm_rsh_agent", scripts["remote-shell"]), ("plm_rsh_no_tree_spawn", 1), ("oob_tcp_if_include", "nodes,eth0"),
                            ("btl_tcp_if_include", "eth0"), ("pml", "ob1"), ("btl", "self,tcp"), ("mpi_yield_when_idle", 1)):
            command += ["--mca", name, value]
        command += [scripts["rank"]] if pinned else []
        print(output(command + [build / "test-bin/mpi_barrier"],
                     {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}))


def mpi(count, pinned):
    """By this script again, in namespaces of its own. One mpirun of ten does not get its ranks started over a remote shell: it is tried again."""
    words = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-B", __file__, "--nodes", count]
    for _ in range(TRIES):
        try:
            return float(output(words + (["--pinned"] if pinned else []), {**os.environ, INSIDE: "1"}, MPI_SECONDS).split()[0])
        except subprocess.TimeoutExpired:
            continue
    sys.exit(f"mpirun has not ended within {MPI_SECONDS} s, {TRIES} times")


def hold_to_cores(folder):
    """The nodes of the cluster in that folder."""
    cores = sorted(os.sched_getaffinity(0))
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0] != b"krgd" or str(folder).encode() not in b" ".join(words):
                continue
            environment = dict(word.split(b"=", 1) for word in (process / "environ").read_bytes().split(b"\0") if b"=" in word)
        except OSError:  # ended meanwhile
            continue
        core = cores[int(environment[b"OMPI_COMM_WORLD_RANK"]) % len(cores)]
        output(["taskset", "-a", "-p", "-c", core, process.name], os.environ)


def ours(build, count, pinned):
    environment = {**os.environ, "OMP_NUM_THREADS": str(count)}
    program = ["-q", "--omp=krg", build / "test-bin/omp_barrier"]
    if not pinned:
        return float(output([build / "bin/krgrun", "-N", count, *program], environment).split()[0])
    with tempfile.TemporaryDirectory() as folder:
        environment["KRG_STATE_DIR"] = folder
        output([build / "bin/kradm", "cluster", "start", "barrier", "-N", count], environment)
        try:
            hold_to_cores(folder)
            first = min(os.sched_getaffinity(0))
            return float(output(["taskset", "-c", first, build / "bin/krgrun", "--cluster", "barrier", *program], environment).split()[0])
        finally:
            output([build / "bin/kradm", "cluster", "stop", "barrier"], environment)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--nodes", default="2,4")
    parser.add_argument("--pinned", action="store_true")
    options = parser.parse_args()
    build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
    if INSIDE in os.environ:
        return measure_mpi(build, int(options.nodes), options.pinned)
    print(f"nodes  OpenMP over nodes  MPI_Barrier  ratio   (us, medians of {options.rounds} runs; load {os.getloadavg()[0]:.1f})")
    for nodes in options.nodes.split(","):
        both = [(ours(build, nodes, options.pinned), mpi(nodes, options.pinned)) for _ in range(options.rounds)]
        mine, theirs = (statistics.median(side) for side in zip(*both))
        print(f"{nodes:>5} {mine:18.1f} {theirs:12.1f} {mine / theirs:6.2f}", flush=True)


if __name__ == "__main__":
    main()
