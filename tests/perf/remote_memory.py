"""Memory of other nodes against swapping to this machine's disk: the same program fills, checks and changes
more memory than it may have, (a) under krgrun on four virtual nodes with --mem-per-node, (b) in a memory cgroup
of as much, with swap on a file of this disk. One run, cases in turn; as root.

    KRG_BUILD_DIR=build/dev python3 tests/perf/remote_memory.py [MIB [LIMIT_MIB]]
SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

BUILD = pathlib.Path(os.environ["KRG_BUILD_DIR"]).resolve()
PROGRAM = BUILD / "test-bin/programs/remote_memory"
CGROUPS = pathlib.Path("/sys/fs/cgroup/memory")
PATIENCE_S = 600


@contextlib.contextmanager
def swap_on_disk(mib):
    """Swap of so much on a file of this disk, while it lasts."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="krg-swap-") as file:
        subprocess.run(["dd", "if=/dev/zero", f"of={file.name}", "bs=1M", f"count={mib}", "status=none"], check=True)
        subprocess.run(["mkswap", file.name], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["swapon", file.name], check=True)
        try:
            yield
        finally:
            subprocess.run(["swapoff", file.name], check=True)


@contextlib.contextmanager
def cgroup(mib):
    """A memory cgroup (version 1 or 2) of so much; what puts a process into it."""
    version_1 = CGROUPS.is_dir()
    group = (CGROUPS if version_1 else CGROUPS.parent) / f"krg-{os.getpid()}"
    group.mkdir()
    (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(mib << 20), encoding="ascii")
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    finally:
        group.rmdir()


def seconds(command, **options):
    begin = time.monotonic()
    result = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True,
                            timeout=PATIENCE_S, **options)
    if (result.returncode, result.stdout) != (0, "right\n"):
        sys.exit(f"{command}: {result.returncode}\n{result.stdout}{result.stderr}")
    return time.monotonic() - begin


def main():
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 900
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    krgrun = [BUILD / "bin/krgrun", "-N", "4", "--cluster=none", f"--mem-per-node={limit}M",
              "--caps=+USE_REMOTE_MEMORY"]
    start = seconds([*krgrun, "echo", "right"])
    remote = seconds([*krgrun, PROGRAM, mib, "run"])
    with swap_on_disk(mib + 128), cgroup(limit) as enter:
        swapped = seconds([PROGRAM, mib, "run"], preexec_fn=enter)
    print(f"{mib} MiB, {limit} MiB a node: memory of 4 nodes {remote - start:.1f} s (and {start:.1f} s for the cluster), "
          f"swap on disk {swapped:.1f} s, ratio {(remote - start) / swapped:.2f}")


if __name__ == "__main__":
    main()
