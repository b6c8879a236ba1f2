"""Processes that are placed when they exec: however they were forked, they stay their parent's children.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from session_case import BUSY, SessionCase

# Starts 12 children that tell their host and exit with their number; prints the hosts that differ from this one.
PARENT = """
import os, socket, subprocess, sys
command = lambda i: ["bash", "-c", "echo $HOSTNAME; sleep 0.1; exit %d" % i]
def by_fork(i, out):
    pid = os.fork()
    if pid == 0:
        os.dup2(out, 1)
        os.execvp("bash", command(i))
    return pid
def by_posix_spawn(i, out):
    return os.posix_spawnp("bash", command(i), os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, 1)])
started = []
def by_vfork(i, out):
    started.append(subprocess.Popen(command(i), stdout=out))
    return started[-1].pid
reader, writer = os.pipe()
how = {"fork": by_fork, "posix_spawn": by_posix_spawn, "vfork": by_vfork}[sys.argv[1]]
pids = {how(i, writer): i for i in range(12)}
os.close(writer)
hosts = os.fdopen(reader).read().split()
for pid, i in pids.items():
    waited, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == i, (waited, i, status)
assert len(hosts) == 12, hosts
print(len(set(hosts)))
"""


# Its children exec; then come some that run on, one after the other, until one does so elsewhere.
CHANGING = """
import os, sys, time
for _ in range(4):
    if os.fork() == 0: os.execv("/bin/true", ["true"])
    os.wait()
for number in range(8):
    if os.fork() == 0:
        time.sleep(1.5)
        os._exit(os.uname().nodename != sys.argv[1])
    if os.wait()[1] != 0: break
print(0 < number < 7)
"""


class PlacementTest(SessionCase):
    def test_children_of_every_kind_run_on_several_nodes(self):
        for how in ("fork", "posix_spawn", "vfork"):
            with self.subTest(how):
                result = self.krgrun("python3", "-c", PARENT, how, check=True)
                self.assertGreater(int(result.stdout), 1, "hosts")

    def test_children_that_run_on_are_placed_though_earlier_ones_have_execed(self):
        (self.work / "changing.py").write_text(CHANGING, encoding="ascii")
        self.assertEqual(self.shell(f"{BUSY}\n{BUSY}\nsleep 0.3; /proc/self/root/usr/bin/python3 changing.py $HOSTNAME"), "True")

    def test_a_body_ends_with_its_shadow_and_stops_with_it(self):
        out = self.shell(
            "state() { ps -o stat= -p $1 | cut -c1; }; set +m; exec 2>/dev/null\n"
            "for i in 1 2 3 4 5 6; do sleep 1000 & pids+=($!); done; sleep 0.5\n"
            "for p in ${pids[*]}; do kill -STOP $p; done; sleep 0.5; for p in ${pids[*]}; do state $p; done\n"
            "for p in ${pids[*]}; do kill -CONT $p; done; sleep 0.5; for p in ${pids[*]}; do state $p; done\n"
            "for p in ${pids[*]}; do kill -KILL $p; done; for p in ${pids[*]}; do wait $p; echo $?; done\n"
            "sleep 0.5; pgrep -x sleep | wc -l")
        self.assertEqual(out.split(), ["T"] * 6 + ["S"] * 6 + ["137"] * 6 + ["0"])

    def test_a_body_places_its_own_children(self):
        out = self.shell("for i in 1 2 3 4; do bash -c 'for j in 1 2 3; do bash -c \"echo \\$HOSTNAME; sleep 0.2; "
                         "exit $((j + 1))\" & p[$j]=$!; done; for j in 1 2 3; do wait ${p[$j]}; echo $?; done' & done; wait")
        words = out.split()
        self.assertEqual(sorted(w for w in words if w.isdigit()), sorted(["2", "3", "4"] * 4))
        self.assertGreater(len({w for w in words if not w.isdigit()}), 1)

    def test_what_cannot_exec_fails_as_it_does_natively(self):
        script = self.work / "script"
        script.write_text("no magic\nexit 3\n")
        script.chmod(0o755)
        data = self.work / "data"
        data.write_text("")
        out = self.shell("exec 2>/dev/null; for i in 1 2 3; do ./script; echo $?; ./data; echo $?; ./missing; echo $?; done")
        self.assertEqual(out.split(), ["3", "126", "127"] * 3)

    def test_children_of_a_program_that_traces_stay_with_it(self):
        result = self.krgrun(self.build / "test-bin/programs/tracer", check=True)
        self.assertEqual(result.stdout.split("\n"), ["traced"] * 6 + [""])

    def test_a_child_elsewhere_that_asks_to_be_traced_is_refused(self):
        """Of a statically linked program nobody knows that it traces."""
        result = self.krgrun(self.build / "test-bin/programs/tracer_static", check=True)
        lines = set(result.stdout.splitlines())
        self.assertLessEqual(lines, {"traced", "Operation not permitted"})  # placement may leave some at home
        self.assertIn("Operation not permitted", lines)


if __name__ == "__main__":
    session_case.main()
