#!/usr/bin/env python3
"""What checkpoints of memory that three processes on three nodes share cost: the pause, and what further ones have to write.

usage: shared_checkpoint.py BUILD_DIR [--mib 64] [--rounds 3] [--dir DIR]

All pages have contents; each child writes a quarter of them first, and one page of a hundred of all of it before each further checkpoint. How long that takes is told, too: the right to write
is asked for anew after a checkpoint.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

PROGRAM = r"""
import mmap, os, sys, time
size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size)
block = os.urandom(1 << 20)
for at in range(0, size, 1 << 20): memory[at:at + (1 << 20)] = block
for me in range(2):
    if os.fork() == 0:
        for at in range(me * size // 2, me * size // 2 + size // 4, 4096): memory[at] = me
        open("filled.%d" % me, "w").close()
        written = 0
        while True:
            if os.path.exists("touch.%d" % me):
                written += 1
                begin = time.monotonic()
                for at in range(written * 4096 + me * 409600, size, 819200): memory[at] = written % 256
                open("took.%d" % me, "w").write(str(time.monotonic() - begin))
                os.unlink("touch.%d" % me)
            time.sleep(0.002)
while not (os.path.exists("filled.0") and os.path.exists("filled.1")): time.sleep(0.01)
open("ready", "w").close()
time.sleep(100000)
"""


def wait_until(done, process):
    while not done():
        if process.poll() is not None:
            raise SystemExit(f"the program ended: {process.returncode}")
        time.sleep(0.002)


def measure(build, folder, options):
    (folder / "program.py").write_text(PROGRAM)
    os.mkfifo(folder / "orders")
    script = (f"krg_capset -d +CHECKPOINTABLE; /usr/bin/python3 program.py {options.mib} & while [ ! -e ready ]; do sleep 0.05; done\n"
              "while read -r how; do krg_checkpoint $how -o ckpt -K 2 $!; done <orders; kill $!")
    with open(folder / "log", "w", encoding="ascii") as log:
        krgrun = subprocess.Popen(["krgrun", "--cluster=none", "-N", "3", "--caps=+DISTANT_FORK", "bash", "-c", f"{{ {script}; }}"], cwd=folder,
                                  env=dict(os.environ, PATH=f"{build}/bin:{os.environ['PATH']}"), stdin=subprocess.DEVNULL, stdout=log, start_new_session=True)
    try:
        wait_until((folder / "ready").exists, krgrun)
        with open(folder / "orders", "w", encoding="ascii") as orders:
            for number in range(options.rounds + 1):
                took = []
                for me in range(2 if number > 0 else 0):
                    (folder / f"touch.{me}").touch()
                    wait_until(lambda me=me: not (folder / f"touch.{me}").exists(), krgrun)
                    took.append(float((folder / f"took.{me}").read_text()) * 1000)
                os.sync()
                orders.write("--full\n" if number == 0 else "\n")
                orders.flush()
                wait_until(lambda number=number: (folder / "log").read_text().count("\n") > number, krgrun)
                line = (folder / "log").read_text().split("\n")[number]
                held, pause, written = re.search(r", ([\d.]+) of .*paused ([\d.]+) ms, written in ([\d.]+) ms", line).groups()
                print(f"{options.mib} MiB: {'all' if number == 0 else 'further'}: {held} MiB, pause {pause} ms, written in {written} ms"
                      + (f"; the children wrote a hundredth of the pages in {took[0]:.1f} and {took[1]:.1f} ms before" if took else ""), flush=True)
    finally:
        os.killpg(krgrun.pid, signal.SIGKILL)
        krgrun.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default="/tmp")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="krg-shared-checkpoint-", dir=options.dir))
    try:
        measure(options.build.resolve(), folder, options)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
