"""What moving costs: the pause of a process that migrates, and remote fork to the child's first instruction.

usage: move_cost.py [--rounds N] [--sizes MIB…] [--load computes|waits] [--only pause|fork] [--apart]     environment: KRG_BUILD_DIR
Goals: a pause of at most 20 ms whatever the size; remote fork of a small process at most 3 ms, of 1 GiB 12 ms.
The pause of the same program that does not move stands beside it: what else the machine does shows there, too; native forks beside remote ones.
What has children go to the other node computes, by default: on few processors, which virtual nodes share, in the other node's way.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import statistics
import subprocess

# $1: the program; the rest its arguments. Moves it while it works, to each of three nodes.
MOVING = """
"$@" >out & pid=$!
until [ -s out ]; do sleep 0.05; done
sleep 0.3
start=$(date +%s%N)
krg_migrate $pid 1 || exit 1
echo $((($(date +%s%N) - start) / 1000))
wait $pid; tail -1 out; rm out
"""
# $0: the load; "$@": what is measured.
LOADED = """
krg_capset -e -DISTANT_FORK
if [ $0 = waits ]; then "$1" load 1 240 &
else { renice -n 19 $BASHPID >/dev/null; while :; do :; done; } &
fi
disown
krg_capset -e +DISTANT_FORK
sleep 0.5; bash -c 'sleep 0.3'
exec "$@"
"""


def output_of(*command):
    return subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=300).stdout.split()


def measure_pause(program, krgrun, mib, rounds):
    moved, still, asked = [], [], []
    for _ in range(rounds):
        still.append(float(output_of(program, "pause", mib, 2)[1]))
        out = output_of(krgrun, "-N", 2, "--caps=+CAN_MIGRATE", "bash", "-c", MOVING, "sh", program, "pause", mib, 3)
        assert out[2] == "right", out
        asked.append(float(out[0]))
        moved.append(float(out[1]))
    print(f"pause {mib:5} MiB: moved median {statistics.median(moved) / 1000:6.1f} ms, best {min(moved) / 1000:6.1f}; "
          f"not moved {statistics.median(still) / 1000:5.1f} ms; krg_migrate takes {statistics.median(asked) / 1000:6.1f} ms", flush=True)


def measure_fork(program, krgrun, mib, rounds, how, load):
    native, remote = [], []
    count = 8 if how == "apart" else 20
    for _ in range(rounds):  # in turn
        native.append([float(word) / 1000 for word in output_of(program, how, mib, count)])
        remote.append([float(word) / 1000 for word in output_of(krgrun, "-N", 2, "--caps=+DISTANT_FORK", "bash", "-c", LOADED, load, program, how, mib, count)])
    here, there = ([statistics.median(column) for column in zip(*lines)] for lines in (native, remote))
    print(f"fork {mib:5} MiB: first instruction native {here[0]:6.2f} ms, remote {there[0]:6.2f} ms ({there[0] / here[0]:5.2f} times, best {min(line[0] for line in remote):6.2f}); "
          f"fork returns native {here[3]:6.2f}, remote {there[3]:6.2f}; end native {here[1]:6.2f}, remote {there[1]:6.2f}; elsewhere {there[2] * 1000:.0f} of {count}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 256, 1024])
    parser.add_argument("--load", choices=["computes", "waits"], default="computes")
    parser.add_argument("--only", choices=["pause", "fork"])
    parser.add_argument("--apart", action="store_true")
    arguments = parser.parse_args()
    build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
    program, krgrun = build / "test-bin/move_cost", build / "bin/krgrun"
    os.environ["PATH"] = f"{build}/bin:{os.environ['PATH']}"
    for mib in arguments.sizes if arguments.only != "fork" else []:
        measure_pause(program, krgrun, mib, arguments.rounds)
    for mib in [1, *arguments.sizes] if arguments.only != "pause" else []:
        measure_fork(program, krgrun, mib, arguments.rounds, "apart" if arguments.apart else "fork", arguments.load)


if __name__ == "__main__":
    main()
