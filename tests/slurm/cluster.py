"""What the Slurm tests share: commands as alice, jobs and their ends, and the rule that nothing is left
behind on any node. Runs on the login node of with_slurm, whose PID namespace sees every process.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import datetime
import os
import pathlib
import re
import subprocess
import time
import unittest

ALICE = 2001
HOME = pathlib.Path("/srv/home/alice")
NODES = ("n1", "n2", "n3", "n4")
# Slurm ends steps in the background; an orderly end takes well under this.
GONE_WITHIN_S = 5


def run(*command, timeout=60, **options):
    """Runs a command as root on the login node. A CompletedProcess with text output."""
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


def alice(*command, **options):
    return run("as_alice", *command, **options)


def wait_for(condition, what, timeout_s=20):
    """Waits until condition() is true and returns what it returned."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout_s} s: {what}")


class Job:
    """A batch job of alice."""

    def __init__(self, script, *options):
        submitted = alice("sbatch", "--parsable", "-o", "job-%j.out", "-e", "job-%j.err", *options,
                          input="#!/bin/bash\n" + script)
        assert submitted.returncode == 0, submitted.stderr
        self.id = submitted.stdout.strip()

    def field(self, name):
        shown = run("scontrol", "show", "job", self.id).stdout
        match = re.search(rf"\b{name}=(\S*)", shown)
        return match[1] if match else None

    def wait_until_running(self):
        wait_for(lambda: self.field("JobState") == "RUNNING", f"job {self.id} runs")

    def wait(self, timeout_s=60):
        """Waits for the job's end; (state, exit code as Slurm prints it)."""
        def ended():
            return self.field("JobState") not in ("PENDING", "RUNNING", "SIGNALING", "COMPLETING", "CONFIGURING")
        wait_for(ended, f"job {self.id} ends", timeout_s)
        return self.field("JobState"), self.field("ExitCode")

    def output(self):
        return (HOME / f"job-{self.id}.out").read_text()

    def errors(self):
        return (HOME / f"job-{self.id}.err").read_text()

    def wait_for_output(self, text):
        path = HOME / f"job-{self.id}.out"
        wait_for(lambda: path.exists() and text in path.read_text(), f"job {self.id} prints {text!r}")

    def end_in(self, seconds):
        """Moves the job's time limit: Slurm takes limits in minutes, but an end in seconds. It looks
        for jobs that are over their limit every 30 seconds."""
        end = datetime.datetime.now() + datetime.timedelta(seconds=seconds)
        changed = run("scontrol", "update", f"JobId={self.id}", f"EndTime={end:%Y-%m-%dT%H:%M:%S}")
        assert changed.returncode == 0, changed.stderr


def processes_of_alice():
    """(pid, command) of every process of hers, on every node."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if os.stat(f"/proc/{entry}").st_uid == ALICE or real_user(entry) == ALICE:
                    found.append((int(entry), pathlib.Path(f"/proc/{entry}/cmdline").read_text()))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return found


def real_user(pid):
    """Processes that made themselves undumpable show root as their folder's owner."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1])


def left_files(root):
    """Files where programs leave them. Our state folder (/tmp/krg-UID, 0700) itself may stay, empty."""
    files = {f"{folder}/{name}" for folder in ("tmp", "dev/shm", "run") for name in os.listdir(root / folder)}
    state = f"tmp/krg-{ALICE}"
    if state in files:
        files = (files - {state}) | {f"{state}/{name}" for name in os.listdir(root / state)}
    return files


def node_state(node):
    """What a job could leave on a node: mounts, files, System V IPC."""
    pid = pathlib.Path(f"/srv/run/{node}.pid").read_text().strip()
    root = pathlib.Path(f"/proc/{pid}/root")
    mounts = {line.split()[4] for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    files = left_files(root)
    ipc = run("nsenter", "-t", pid, "--ipc", "sh", "-c", "cat /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg")
    return mounts, files, len(ipc.stdout.splitlines())


class SlurmTest(unittest.TestCase):
    """After each test no process of alice's may be left on any node, nor anything that she made there."""

    maxDiff = None

    def setUp(self):
        self.before = {node: node_state(node) for node in NODES}

    def tearDown(self):
        try:
            wait_for(lambda: not processes_of_alice(), "alice's processes are gone", GONE_WITHIN_S)
        except AssertionError:
            left = processes_of_alice()
            for pid, _ in left:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass
            self.fail(f"left behind: {left}")
        try:  # slurmstepd takes its own folders away (/tmp/spmix_appdir_*) a moment after the step has ended
            wait_for(lambda: all(node_state(node) == self.before[node] for node in NODES), "nothing is left", 10)
        except AssertionError:
            for node in NODES:
                for before, after in zip(self.before[node], node_state(node)):
                    self.assertEqual(after, before, f"left on {node}")

    def assert_ends(self, job, state, exit_code, timeout_s=60):
        ended = job.wait(timeout_s)
        self.assertEqual(ended, (state, exit_code), job.output() + job.errors())
