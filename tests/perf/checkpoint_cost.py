#!/usr/bin/env python3
"""What checkpoints cost, beside the same bytes written and read raw on the same file system in the same run.

usage: checkpoint_cost.py BUILD_DIR [--mib 1024] [--rounds 5] [--increments 3] [--dir DIR]

Prints for each round and at the end (medians): the pause, the time to write a version with all pages (from the thaw to its commit) and its ratio
to a raw write with fsync; the same of increments, each after 1 % of the pages were written, beside the one with all just before; the time of a restart till the
program's next step, into a cluster that runs, and its ratio to a raw read with a cold cache; what krgrun takes there for a program that does nothing.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import itertools
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

# Memory that does not compress, in small pages or huge ones; one step when a byte comes.
PROGRAM = r"""
import ctypes, mmap, os, sys
size = int(sys.argv[1]) << 20
libc = ctypes.CDLL(None)
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE if sys.argv[2] == "huge" else mmap.MADV_NOHUGEPAGE)
block = os.urandom(1 << 20)
for at in range(0, size, 1 << 20): memory[at:at + (1 << 20)] = block
open("ready", "w").close()
written = 0
while not os.path.exists("go"):
    if os.path.exists("touch"):  # one page of a hundred, over all of the memory
        written += 1
        for at in range(written * 4096, size, 409600): memory[at] = written % 256
        os.unlink("touch")
    import time; time.sleep(0.002)
    open("step", "w").close()
"""


def drop_caches():
    os.sync()
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        pass


def raw_write(path, mib):
    block = os.urandom(1 << 20)
    if path.exists():
        path.unlink()
    start = time.monotonic()
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    for _ in range(mib):
        os.write(fd, block)
    os.fsync(fd)
    os.close(fd)
    return time.monotonic() - start


def raw_read(path):
    drop_caches()
    buffer = bytearray(1 << 20)
    start = time.monotonic()
    fd = os.open(path, os.O_RDONLY)
    while os.readv(fd, [buffer]):
        pass
    os.close(fd)
    return time.monotonic() - start


def wait_for(path, process):
    while not path.exists():
        if process.poll() is not None:
            raise SystemExit(f"the program ended: {process.returncode}")
        time.sleep(0.001)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--increments", type=int, default=3, help="in each round")
    parser.add_argument("--dir", default="/tmp")
    options = parser.parse_args()
    build = options.build.resolve()
    for pages in ("small", "huge"):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="krg-checkpoint-cost-", dir=options.dir))
        try:
            measure(build, folder, pages, options)
        finally:
            shutil.rmtree(folder)


def measure(build, folder, pages, options):
    (folder / "program.py").write_text(PROGRAM)
    (folder / "state").mkdir(mode=0o700)
    env = dict(os.environ, PATH=f"{build}/bin:{os.environ['PATH']}", KRG_STATE_DIR=str(folder / "state"))
    script = (f"/usr/bin/python3 program.py {options.mib} {pages} & while [ ! -e ready ]; do sleep 0.05; done\n"
              "while read -r how; do krg_checkpoint $how -o ckpt -K 2 $!; done <orders; kill $!")
    os.mkfifo(folder / "orders")
    log = open(folder / "log", "w+")
    krgrun = subprocess.Popen(["krgrun", "--cluster=none", "bash", "-c", f"{{ krg_capset -d +CHECKPOINTABLE; {script}; }}"], cwd=folder,
                              env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    rows, increments = [], []
    numbers = itertools.count()

    def save(orders, how):
        time.sleep(0.3)  # what the version before has replaced is removed by then
        number = next(numbers)
        orders.write(how + "\n")
        orders.flush()
        while (folder / "log").read_text().count("\n") <= number:
            time.sleep(0.01)
        line = (folder / "log").read_text().split("\n")[number]
        return [float(x) for x in re.search(r", ([\d.]+) of .*paused ([\d.]+) ms, written in ([\d.]+) ms", line).groups()]

    try:
        wait_for(folder / "ready", krgrun)
        orders = open(folder / "orders", "w")
        for number in range(options.rounds):
            raw = raw_write(folder / "raw", options.mib)
            os.sync()
            held, pause, written = save(orders, "--full")
            rows.append((raw * 1000, pause, written))
            print(f"{pages} pages, round {number}: raw write+fsync {raw * 1000:7.0f} ms; version {written:7.0f} ms, {raw * 100000 / written:4.0f} % of raw speed; "
                  f"pause {pause:5.1f} ms", flush=True)
            for _ in range(options.increments):
                (folder / "touch").touch()
                while (folder / "touch").exists():
                    time.sleep(0.001)
                os.sync()
                part, its_pause, its_time = save(orders, "")
                increments.append((part / held * 100, its_pause, its_time, (its_pause + its_time) / (pause + written) * 100))
                print(f"{pages} pages, round {number}: increment {part:.1f} MiB, {part / held * 100:.2f} % of the bytes; written in {its_time:.1f} ms, "
                      f"pause {its_pause:.1f} ms: {increments[-1][3]:.1f} % of the time", flush=True)
        save(orders, "--full")  # what is restarted
        orders.close()
        krgrun.wait(30)
    finally:
        if krgrun.poll() is None:
            os.killpg(krgrun.pid, signal.SIGKILL)
            krgrun.wait()
    subprocess.run(["kradm", "cluster", "start", "-N", "1"], env=env, stdout=subprocess.DEVNULL, check=True)
    try:
        read = measure_restarts(folder, pages, env, options.rounds)
    finally:
        subprocess.run(["kradm", "cluster", "stop"], env=env, stdout=subprocess.DEVNULL, check=False)
    med = lambda rows, i: statistics.median(row[i] for row in rows)
    print(f"{pages} pages, medians: increment {med(increments, 0):.2f} % of the bytes, {med(increments, 3):.1f} % of the time; written in "
          f"{med(increments, 2):.1f} ms, pause {med(increments, 1):.1f} ms")
    print(f"{pages} pages, medians: raw write {med(rows, 0):.0f} ms, version {med(rows, 2):.0f} ms = {med(rows, 0) / med(rows, 2) * 100:.0f} % of raw speed, pause "
          f"{med(rows, 1):.1f} ms; raw read {med(read, 0):.0f} ms, restart {med(read, 1):.0f} ms = {med(read, 0) / med(read, 1) * 100:.0f} %, with --lazy {med(read, 2):.0f} ms, krgrun true {med(read, 3):.0f} ms")


def measure_restarts(folder, pages, env, rounds):
    """In a cluster that runs: (raw read, all pages first, --lazy, a program that does nothing), in ms."""
    def start(*words):
        drop_caches()
        (folder / "step").unlink(missing_ok=True)
        return time.monotonic(), subprocess.Popen(["krgrun", *words], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                                  start_new_session=True)

    def restart(*words):
        begin, again = start(*words)
        wait_for(folder / "step", again)
        took = time.monotonic() - begin
        (folder / "go").touch()
        again.wait(30)
        (folder / "go").unlink()
        return took * 1000

    def nothing():
        begin, program = start("true")
        program.wait(30)
        return (time.monotonic() - begin) * 1000

    read = []
    for number in range(rounds):
        newest = max((folder / "ckpt").glob("v*.n0.h5"), key=lambda f: f.stat().st_mtime)
        read.append((raw_read(newest) * 1000, restart("--restart=ckpt"), restart("--restart=ckpt", "--lazy"), nothing()))
        raw, whole, lazy, empty = read[-1]
        print(f"{pages} pages, round {number}: raw read {raw:7.0f} ms; restart to the first step {whole:7.0f} ms, with --lazy {lazy:7.0f} ms; "
              f"krgrun true {empty:.0f} ms", flush=True)
    return read


if __name__ == "__main__":
    main()
