#!/usr/bin/env python3
"""Style rules that a machine can hold, each run as a test of its own (see CMakeLists.txt).

  format    every C and C++ file is as clang-format leaves it
  includes  folders include and link only what is below them (docs/ARCHITECTURE.md):
            launcher -> {checkpoint, kdfs-mpiio} -> procmgr -> shmem -> runtime
  headers   `#pragma once`, an SPDX line in each file, no macros of our own
  lengths   prints files over 400 lines; over 600 is a failure

usage: check_style.py RULE [--root FOLDER]
SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys

FOLDERS = ("runtime", "shmem", "procmgr", "kdfs-mpiio", "checkpoint", "launcher", "examples", "tests")
SUFFIXES = (".h", ".cpp", ".c")

# What each folder may use besides itself. Folders that are not listed (examples, tests) may use all.
BELOW = {
    "runtime": set(),
    "shmem": {"runtime"},
    "procmgr": {"shmem", "runtime"},
    "kdfs-mpiio": {"procmgr", "shmem", "runtime"},
    "checkpoint": {"procmgr", "shmem", "runtime"},
    "launcher": {"checkpoint", "kdfs-mpiio", "procmgr", "shmem", "runtime"},
}
# The folder whose headers are included as krg/NAME/..., and whose target is krg::NAME.
FOLDER_OF_NAME = {**{folder: folder for folder in BELOW}, "kdfs": "kdfs-mpiio", "mpiio": "kdfs-mpiio",
                  "client": "shmem"}

# Macros that other people's headers ask for before they are included.
ASKED_FOR = {"_GNU_SOURCE", "_FILE_OFFSET_BITS", "FUSE_USE_VERSION"}

REPORTED_LINES = 400
MOST_LINES = 600


def source_files(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                yield path


def check_format(root):
    files = list(source_files(root))
    if not files:
        return ["no source files found"]
    style = f"--style=file:{root / '.clang-format'}"
    run = subprocess.run(["clang-format", style, "--dry-run", "--Werror", *files],
                         capture_output=True, text=True)
    return run.stderr.splitlines() if run.returncode else []


def include_faults(root, path):
    """What `path` includes that its folder must not know."""
    folder = path.relative_to(root).parts[0]
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path.relative_to(root)}:{number}"
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if not match:
            continue
        target = match[2]
        if target.startswith("krg/"):
            used = FOLDER_OF_NAME.get(target.split("/")[1])
            if used is None:
                yield f"{where}: {target}: no folder has headers of this name"
            elif folder in BELOW and used != folder and used not in BELOW[folder]:
                yield f"{where}: {folder} must not include {target}: {used} is not below it"
        elif match[1] == '"':
            resolved = (path.parent / target).resolve()
            if ".." in pathlib.PurePath(target).parts and not resolved.is_relative_to(root / folder):
                yield f"{where}: {target} reaches into another folder"


def link_faults(root, folder):
    """Targets of folders that are not below `folder` and that its CMakeLists.txt names."""
    path = root / folder / "CMakeLists.txt"
    if not path.exists():
        return
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for name in re.findall(r"\bkrg(?:::|_)([a-z-]+)", line.split("#")[0]):
            used = FOLDER_OF_NAME.get(name)
            if used and used != folder and used not in BELOW[folder]:
                yield f"{folder}/CMakeLists.txt:{number}: {folder} must not link krg::{name}"


def check_includes(root):
    faults = [fault for path in source_files(root) for fault in include_faults(root, path)]
    return faults + [fault for folder in BELOW for fault in link_faults(root, folder)]


def check_headers(root):
    faults = []
    for path in source_files(root):
        name = path.relative_to(root)
        text = path.read_text()
        if "SPDX-License-Identifier: GPL-2.0-or-later" not in text:
            faults.append(f"{name}: no SPDX-License-Identifier line")
        if path.suffix == ".h" and not re.search(r"^#pragma once$", text, re.MULTILINE):
            faults.append(f"{name}: no #pragma once")
        for macro in re.findall(r"^\s*#\s*define\s+(\w+)", text, re.MULTILINE):
            if macro not in ASKED_FOR:
                faults.append(f"{name}: defines the macro {macro}")
    return faults


def check_lengths(root):
    faults = []
    for path in source_files(root):
        lines = len(path.read_text().splitlines())
        if lines > REPORTED_LINES:
            print(f"{path.relative_to(root)}: {lines} lines (aim: {REPORTED_LINES})")
        if lines > MOST_LINES:
            faults.append(f"{path.relative_to(root)}: {lines} lines, more than {MOST_LINES}")
    return faults


RULES = {"format": check_format, "includes": check_includes, "headers": check_headers,
         "lengths": check_lengths}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rule", choices=RULES)
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(os.path.realpath(__file__)).parents[2])
    arguments = parser.parse_args()
    faults = RULES[arguments.rule](arguments.root.resolve())
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
