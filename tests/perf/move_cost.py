"""What moving costs: the pause of a process that migrates, and remote fork to the child's first instruction.

usage: move_cost.py [--rounds N] [--sizes MIB…] [--load computes|waits]     environment: KRG_BUILD_DIR
Goals: a pause of at most 20 ms whatever the size; remote fork of a small process at most 3 ms, of 1 GiB 12 ms.
The pause of the same program that does not move stands beside it: what else the machine does shows there, too.
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 256, 1024])
    parser.add_argument("--load", choices=["computes", "waits"], default="computes")
    arguments = parser.parse_args()
    build = pathlib.Path(os.environ["KRG_BUILD_DIR"])
    program, krgrun = build / "test-bin/move_cost", build / "bin/krgrun"
    os.environ["PATH"] = f"{build}/bin:{os.environ['PATH']}"
    for mib in arguments.sizes:
        moved, still, asked = [], [], []
        for _ in range(arguments.rounds):
            still.append(float(output_of(program, "pause", mib, 2)[1]))
            out = output_of(krgrun, "-N", 2, "--caps=+CAN_MIGRATE", "bash", "-c", MOVING, "sh", program, "pause", mib, 3)
            assert out[2] == "right", out
            asked.append(float(out[0]))
            moved.append(float(out[1]))
        print(f"pause {mib:5} MiB: moved median {statistics.median(moved) / 1000:6.1f} ms, best {min(moved) / 1000:6.1f}; "
              f"not moved {statistics.median(still) / 1000:5.1f} ms; krg_migrate takes {statistics.median(asked) / 1000:6.1f} ms")
    for mib in [1, *arguments.sizes]:
        native = output_of(program, "fork", mib, 20)
        remote = output_of(krgrun, "-N", 2, "--caps=+DISTANT_FORK", "bash", "-c", LOADED, arguments.load, program, "fork", mib, 20)
        print(f"fork {mib:5} MiB: first instruction native {float(native[0]) / 1000:6.2f} ms, remote {float(remote[0]) / 1000:6.2f} ms; "
              f"end native {float(native[1]) / 1000:6.2f}, remote {float(remote[1]) / 1000:6.2f}; elsewhere {remote[2]} of 20")


if __name__ == "__main__":
    main()
