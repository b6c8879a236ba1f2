#!/usr/bin/env python3
"""How long checkpoints with all pages have a process stand whose threads run on several nodes.

usage: spread_checkpoint.py BUILD_DIR... [--nodes 2] [--mib 64,256] [--rounds 3] [--between-ms 100] [--dir DIR]

All pages have contents, each node's threads have written their part; a 64th of the pages is written anew every --between-ms. Several builds are measured one
after the other, with the last one's program. Load of other programs counts.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time


class Program:
    def __init__(self, build, program, folder, nodes, mib, between_ms):
        self.folder = folder
        self.env = dict(os.environ, PATH=f"{build}/bin:{os.environ['PATH']}", OMP_NUM_THREADS=str(2 * nodes))
        command = ["krgrun", "--cluster=none", "-q", "-N", str(nodes), "--omp=krg", "--caps=+CHECKPOINTABLE", "sh", "-c",
                   "echo $$ >pid; exec \"$@\"", "sh", program, str(mib * 256), str(between_ms * 1000)]
        self.krgrun = subprocess.Popen(command, cwd=folder, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        while not (folder / "ready").exists():
            if self.krgrun.poll() is not None:
                raise SystemExit(f"the program ended: {self.krgrun.returncode}")
            time.sleep(0.02)

    def pause(self):
        """Milliseconds of a checkpoint with all pages, and what it held."""
        told = subprocess.run(["krgrun", f"--cluster=run{self.krgrun.pid}", "-q", "krg_checkpoint", "--full", "-K", "1", "-o", "ckpt", (self.folder / "pid").read_text().strip()],
                              cwd=self.folder, env=self.env, capture_output=True, text=True, check=True).stdout
        held, pause = re.search(r", ([\d.]+) of .*paused ([\d.]+) ms", told).groups()
        return float(pause), held

    def end(self):
        os.killpg(self.krgrun.pid, signal.SIGKILL)
        self.krgrun.wait()


def measure(build, options, mib):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="krg-spread-checkpoint-", dir=options.dir))
    program = None
    try:
        program = Program(build, options.build[-1].resolve() / "test-bin/programs/checkpoint_writing", folder, options.nodes, mib, options.between_ms)
        return [program.pause() for _ in range(options.rounds)]
    finally:
        if program:
            program.end()
        shutil.rmtree(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path, nargs="+")
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--mib", default="64,256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--between-ms", type=int, default=100)
    parser.add_argument("--dir", default="/tmp")
    options = parser.parse_args()
    for mib in map(int, options.mib.split(",")):
        for build in options.build:
            pauses = measure(build.resolve(), options, mib)
            took = [pause for pause, _ in pauses]
            print(f"{build}: {mib} MiB, {options.nodes} nodes: pause {statistics.median(took):.1f} ms ({min(took):.1f}, {max(took):.1f}), {pauses[-1][1]} MiB saved", flush=True)


if __name__ == "__main__":
    main()
