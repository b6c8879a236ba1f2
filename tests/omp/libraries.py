"""Where the two OpenMP runtimes are, and how a program is run with either.

environment: KRG_BUILD_DIR
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import re
import subprocess

BUILD = pathlib.Path(os.environ["KRG_BUILD_DIR"])
OURS = BUILD / "libexec/kerrighed/omp"


def system_library():
    """The libgomp.so.1 that ld.so finds by itself."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return re.search(r"libgomp\.so\.1 .*x86-64.* => (\S+)", listed)[1]


def run(program, *arguments, ours, timeout=60, **variables):
    """CompletedProcess of a program in test-bin, its output as text. `variables` are added to the environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment.pop("LD_LIBRARY_PATH", None)
    environment.update(variables)
    if ours:
        environment["LD_LIBRARY_PATH"] = str(OURS)
    return subprocess.run([str(BUILD / "test-bin" / program), *arguments], env=environment, text=True,
                          capture_output=True, timeout=timeout, stdin=subprocess.DEVNULL)
