"""Memory that processes on different nodes share by name: /dev/shm is one for the whole session.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import unittest

import session_case
from session_case import BUSY, SessionCase

# Waits, on any node, until its byte of the memory holds the number before, and writes its own.
PYTHON_WORKER = """
import socket, sys, time
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(name=sys.argv[1]); mine = int(sys.argv[2])
resource_tracker.unregister(memory._name, "shared_memory")
for _ in range(30000):
    if memory.buf[mine - 1] == mine: break
    time.sleep(0.001)
memory.buf[mine] = mine + 1
right = memory.size >= 5000 and sum(memory.buf[:mine + 1]) == sum(range(1, mine + 2))
sys.stdout.write(f"{socket.gethostname()} {right}" + chr(10))
memory.close()
"""

# A name that is gone does not end the memory; what is left of it afterwards.
UNLINKED = """
import mmap, os, sys, time
fd = os.open("/dev/shm/going", os.O_RDWR)
memory = mmap.mmap(fd, 8192); os.close(fd); mine = int(sys.argv[1])
memory[mine] = 1
while sum(memory[:4]) < 4: time.sleep(0.001)
try: os.unlink("/dev/shm/going")
except FileNotFoundError: pass
memory[4096 + mine] = 1
while sum(memory[4096:4100]) < 4: time.sleep(0.001)
assert not os.path.exists("/dev/shm/going")
print(os.uname().nodename)
"""

# The first makes a hole in what all have mapped and written, from within a page to within another.
# Process 0 has never had the pages that it removes; whoever has been told of the removal reads zeros.
REMOVAL = """
import mmap, os, sys, time
fd = os.open("/dev/shm/removal", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 9 * 4096)
memory = mmap.mmap(fd, 9 * 4096); mine = int(sys.argv[1])
def meet(at):
    memory[8 * 4096 + 8 * at + mine] = 1
    while sum(memory[8 * 4096 + 8 * at:8 * 4096 + 8 * at + 3]) < 3: time.sleep(0.0001)
def whole(first, count): return memory[first * 4096:(first + count) * 4096]
for number in range(20):
    if mine == 1: memory[:8 * 4096] = bytes([1]) * (8 * 4096)
    meet(5 * number)
    assert mine == 0 or whole(0, 8) == bytes([1]) * (8 * 4096)
    meet(5 * number + 1)
    if mine == 0: memory.madvise(mmap.MADV_REMOVE, 2 * 4096, 4 * 4096)
    meet(5 * number + 2)
    assert whole(2, 4) == bytes(4 * 4096), number
    meet(5 * number + 3)
    assert whole(0, 2) + whole(6, 2) == bytes([1]) * (4 * 4096)
    meet(5 * number + 4)
print(os.uname().nodename)
"""
HOLE = """
import mmap, os, subprocess, sys, time
fd = os.open("/dev/shm/hole", os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 6 * 4096)
memory = mmap.mmap(fd, 6 * 4096); mine = int(sys.argv[1])
def meet(at):
    memory[5 * 4096 + 8 * at + mine] = 1
    while sum(memory[5 * 4096 + 8 * at:5 * 4096 + 8 * at + 3]) < 3: time.sleep(0.001)
meet(0)
if mine == 0: memory[:5 * 4096] = bytes([1]) * (5 * 4096)
meet(1)
assert sum(memory[:5 * 4096]) == 5 * 4096
meet(2)
if mine == 0: subprocess.run(["fallocate", "-p", "-o", "4096", "-l", "8292", "/dev/shm/hole"], check=True)
meet(3)
assert sum(memory[:4096]) == 4096 and sum(memory[4096:4096 + 8292]) == 0 and sum(memory[4096 + 8292:5 * 4096]) == 4 * 4096 - 8292
meet(4)
if mine == 1: memory[5000] = 7
meet(5)
assert memory[5000] == 7
print(os.uname().nodename)
"""

# The end of a fork's child is noticed within a second.
ALL_GONE = ("for ((t = 0; t < 100; t++)); do [ $(df --output=used /dev/shm | tail -1) = 0 ] && break; sleep 0.1; done\n"
            "df --output=used /dev/shm | tail -1")

# One of two that count together is moved while they do.
MOVING = """
import mmap, os, time
memory = mmap.mmap(-1, 3 << 20)
child = os.fork()
if child == 0:
    n = 0
    while memory[8] == 0:
        n += 1
        memory[1 << 20:(1 << 20) + 8] = n.to_bytes(8, "little")
    memory[2 << 20:(2 << 20) + 8] = n.to_bytes(8, "little")
    memory[9] = 1
    os._exit(0)
open("ready", "w").close()
last = 0
while os.path.exists("go"):
    seen = int.from_bytes(memory[1 << 20:(1 << 20) + 8], "little")
    assert seen >= last
    last = seen
memory[8] = 1
os.waitpid(child, 0)
same = memory[9] == 1 and memory[1 << 20:(1 << 20) + 8] == memory[2 << 20:(2 << 20) + 8] and last > 0
print(os.uname().nodename, same, flush=True)
"""


# Counts in its own byte of the shared page by turns with three forks' children, which count in theirs.
FAMILY = """
import mmap, os, time
fd = os.open("/dev/shm/family", os.O_RDWR)
memory = mmap.mmap(fd, 8192)
try: base = 0 if os.open("/dev/shm/family.first", os.O_CREAT | os.O_EXCL) else 4
except FileExistsError: base = 4
children = []
mine = base
for number in range(1, 4):
    pid = os.fork()
    if pid == 0:
        mine, children = base + number, []
        break
    children.append(pid)
for turn in range(50):
    while min(memory[0:8]) < turn: time.sleep(0.0005)
    memory[mine] += 1
for pid in children: assert os.waitpid(pid, 0)[1] == 0
if mine == base: print(os.uname().nodename)
"""


class OneNodeTest(SessionCase):
    """Where /dev/shm is each node's own: there it works, and what uses it stays together."""

    def test_processes_that_share_memory_stay_together(self):
        program = self.build / "test-bin/programs/shared_counters"
        out = self.shell(f"exec 5>/dev/shm/open; for i in 0 1 2; do {program} /krg-test 3 $i 2000 & done; wait\n"
                         "ls /dev/shm; rm /dev/shm/*")
        self.assertEqual(out.split(), ["n0"] * 3 + ["krg-test", "open", "sem.krg-test"])


class SharedMemoryTest(SessionCase):
    def in_background(self, command, copies, before="", after="", **options):
        """Runs copies of a command (its $i counts) away from the busy first node; what they print, in lines."""
        # So busy that no process that is just starting elsewhere makes the nodes look alike.
        script = (f"{BUSY}\n{BUSY}\n{BUSY}\nsleep 0.3; bash -c 'sleep 0.3'\n{before}\n"
                  f"for ((i = 0; i < {copies}; i++)); do {command} & pids+=($!); home=; done\n"
                  f"for p in ${{pids[*]}}; do wait $p || echo failed; done\n{after}")
        return self.shell(script, **options).split("\n")

    def one_at_home(self, program, arguments):
        """A command for in_background: its first copy stays (a path through /proc does not go to other nodes)."""
        return f"$home{self.build}/test-bin/programs/{program} {arguments}", "home=/proc/self/root"

    def assert_spread(self, hosts, nodes=2):
        self.assertGreaterEqual(len(set(hosts)), nodes, hosts)

    def test_names_and_contents_are_the_same_on_all_nodes(self):
        lines = self.in_background("bash -c 'echo $HOSTNAME >> /dev/shm/hosts'", 8,
                                   after="sort -u /dev/shm/hosts | wc -l; wc -l < /dev/shm/hosts; rm /dev/shm/hosts; "
                                         "ls -A /dev/shm; df --output=used /dev/shm | tail -1")
        self.assertGreater(int(lines[0]), 1)
        self.assertEqual(lines[1].strip(), "8")
        self.assertEqual(lines[2].strip(), "0")

    def test_who_may_write_a_file_can_map_it_for_reading(self):
        read = ("import mmap, os; fd = os.open('/dev/shm/x', os.O_RDONLY); "
                "m = mmap.mmap(fd, 8192, mmap.MAP_SHARED, mmap.PROT_READ); print(m[8190:])")
        out = self.shell(f'printf "%08191d7" 0 > /dev/shm/x; /usr/bin/python3 -c "{read}"; rm /dev/shm/x')
        self.assertEqual(out, "b'07'")

    def test_the_rules_of_a_file_system_hold(self):
        out = self.shell(
            "cd /dev/shm; stat -c %a .; echo hello > a; ln a b; mv b c; stat -c '%h %s %a' a; ls | tr '\\n' ' '; echo\n"
            "truncate -s 3 a; truncate -s 5 c; od -An -c a; mkdir d; echo x > d/x; rmdir d 2>/dev/null || echo full\n"
            "rm -r d; chmod 400 a; touch -d @1000 a; stat -c '%a %Y' a; ln -s a l; cat l | wc -c; fallocate -l 9000 c; stat -c %s c\n"
            "dd if=/dev/zero of=c bs=1 seek=8 count=1 conv=notrunc status=none; cmp a c; rm a c l; ls")
        self.assertEqual(out.split("\n")[:2], ["1777", "2 6 644"])
        self.assertEqual([" ".join(line.split()) for line in out.split("\n")[2:]],
                         ["a c", "h e l \\0 \\0", "full", "400 1000", "5", "9000"])

    def test_names_are_as_long_as_on_a_disk(self):
        out = self.shell("cd /dev/shm; name=$(printf %0255d 7); long=${name}8; refused() { \"$@\" 2>&1 | grep -o 'File name too long'; }\n"
                         "echo kept >$name; cat $name; for call in touch rm mkdir \"mv $name\"; do refused $call $long; done; rm $name; ls")
        self.assertEqual(out.split("\n"), ["kept"] + 4 * ["File name too long"])

    def test_access_tells_what_may_be_done(self):
        ask = "for a in r w x; do if [ -$a $f ]; then said+=$a; else said+=-; fi; done"
        lines = self.in_background(f"bash -c 'for f in a d s; do {ask}; done; echo $said'", 3,
                                   before="cd /dev/shm; : > a; chmod 400 a; mkdir d; chmod 555 d; : > s; chmod 711 s",
                                   after="rm -r a d s")
        self.assertEqual(lines, ["r--r-xrwx" if self.as_user else "rw-rwxrwx"] * 3)

    def test_a_hole_is_zeros_on_all_nodes(self):
        (self.work / "hole.py").write_text(HOLE, encoding="ascii")
        lines = self.in_background("timeout 40 /usr/bin/python3 hole.py $i", 3, after="od -An -tx1 -j 4095 -N 2 /dev/shm/hole; rm /dev/shm/*")
        self.assert_spread(lines[:3])
        self.assertEqual(lines[3].split(), ["01", "00"])

    def test_removed_pages_are_zeros_on_all_nodes_when_the_call_returns(self):
        (self.work / "removal.py").write_text(REMOVAL, encoding="ascii")
        self.assert_spread(self.in_background("timeout 40 /usr/bin/python3 removal.py $i", 3, after="rm /dev/shm/*"))

    def test_counters_and_semaphores_on_two_and_four_nodes(self):
        for nodes in (2, 4):
            with self.subTest(nodes):
                command, before = self.one_at_home("shared_counters", f"/krg-test {nodes} $i 20000")
                hosts = self.in_background(command, nodes, before, nodes=nodes,
                                           after="cd /dev/shm; ls; rm *; df --output=used . | tail -1")
                self.assertEqual([line.strip() for line in hosts[nodes:]], ["krg-test", "sem.krg-test", "0"])
                self.assert_spread(hosts[:nodes])

    def test_segments_on_two_and_four_nodes(self):
        for nodes in (2, 4):
            with self.subTest(nodes):
                command, before = self.one_at_home("shared_segments", f"4711 {nodes} $i")
                hosts = self.in_background(command, nodes, before, nodes=nodes,
                                           after=f"{ALL_GONE}; ipcs -m | grep -c 0x; :")
                self.assertEqual([line.strip() for line in hosts[nodes:]], ["0", "0"])
                self.assert_spread(hosts[:nodes])

    def test_no_outcome_that_sequential_consistency_forbids(self):
        """KRG_LITMUS_ITERATIONS=1000000 runs so many of each."""
        iterations = int(os.environ.get("KRG_LITMUS_ITERATIONS", "20000"))
        for name in ("sb", "mp", "lb", "iriw", "coherence", "atomics"):
            with self.subTest(name):
                command, before = self.one_at_home("litmus", f"/krg-litmus {name} 4 $i {iterations}")
                lines = self.in_background(command, 4, before, timeout=60 + iterations / 1000, after="rm /dev/shm/krg-litmus")
                self.assert_spread([line.split()[0] for line in lines])
                if "KRG_LITMUS_ITERATIONS" in os.environ:
                    print(name, *lines, flush=True)

    def test_python_finds_the_memory_on_another_node(self):
        (self.work / "worker.py").write_text(PYTHON_WORKER, encoding="ascii")
        create = ("from multiprocessing import resource_tracker, shared_memory; "
                  "m = shared_memory.SharedMemory('krg', True, 5000); m.buf[0] = 1; "
                  "resource_tracker.unregister(m._name, 'shared_memory'); m.close()")
        lines = self.in_background("/usr/bin/python3 worker.py krg $((i + 1))", 4, before=f'/usr/bin/python3 -c "{create}"',
                                   after="rm /dev/shm/krg; ls -A /dev/shm")
        self.assertEqual([line.split()[1:] for line in lines], [["True"]] * 4)
        self.assert_spread(line.split()[0] for line in lines)

    def test_memory_without_a_name_lives_as_long_as_its_mappings(self):
        (self.work / "unlinked.py").write_text(UNLINKED, encoding="ascii")
        lines = self.in_background("timeout 40 /usr/bin/python3 unlinked.py $i", 4, before="truncate -s 8192 /dev/shm/going",
                                   after="sleep 0.3; df --output=used /dev/shm | tail -1")
        self.assertEqual(lines[4].strip(), "0")
        self.assert_spread(lines[:4])

    def test_anonymous_memory_of_forks_children_on_other_nodes(self):
        program = self.build / "test-bin/programs/shared_fork"
        # Its forks' children may go to other nodes, itself may not.
        out = self.shell(f"krg_capset -e -DISTANT_FORK; krg_capset -d +DISTANT_FORK\n{program} 6 3000 | cat\n"
                         f"{ALL_GONE}").split()
        self.assertEqual(len(out), 7, out)
        self.assert_spread(out[:6], 3)
        self.assertEqual(out[6], "0")

    def test_calls_that_krgd_answers_use_shared_memory_wherever_it_is(self):
        program = self.build / "test-bin/programs/shared_answers"
        for nodes in (2, 4):
            for kind in ("file", "segment", "anonymous", "fixed"):
                with self.subTest(nodes=nodes, kind=kind):
                    lines = self.shell("krg_capset -e -DISTANT_FORK; krg_capset -d +DISTANT_FORK\n"
                                       f"{program} {kind} | cat", nodes=nodes, timeout=120).split("\n")
                    self.assertEqual([line.split()[1:] for line in lines], [["0", "failures"]] * 4, lines)
                    self.assert_spread((line.split()[0] for line in lines), nodes=2)

    def test_mutexes_of_all_kinds_wherever_the_memory_is_mapped(self):
        program = self.build / "test-bin/programs/shared_mutexes"
        both = [(kind, "fixed") for kind in ("plain", "robust", "priority", "priority-robust")]
        for kind, place in [*both, ("priority", "kernel"), ("plain", "hint"), ("plain", "segment")]:
            with self.subTest(kind=kind, place=place):
                hosts = self.shell("krg_capset -e -DISTANT_FORK; krg_capset -d +DISTANT_FORK\n"
                                   f"{program} {kind} {place} 200 fork | cat", timeout=60).split()
                self.assertEqual(len(hosts), 4, hosts)
                self.assert_spread(hosts)

    def test_children_made_by_clone3_share(self):
        program = self.build / "test-bin/programs/shared_mutexes"
        hosts = self.shell("krg_capset -e -DISTANT_FORK; krg_capset -d +DISTANT_FORK\n"
                           f"{program} plain kernel 200 clone3 | cat", timeout=60).split()
        self.assertEqual(len(hosts), 4, hosts)
        if self.as_user:  # then it is refused, and fork taken, which goes elsewhere
            self.assert_spread(hosts)

    def test_a_forks_child_here_shares_on(self):
        """A process on one node, its forks' children, and one on another node count in the same memory."""
        (self.work / "family.py").write_text(FAMILY, encoding="ascii")
        out = self.shell(f"krg_capset -d +DISTANT_FORK; {BUSY}\nsleep 0.3; truncate -s 8192 /dev/shm/family\n"
                         "krg_capset -e -DISTANT_FORK; /usr/bin/python3 family.py & a=$!; krg_capset -e +DISTANT_FORK\n"
                         "/usr/bin/python3 family.py & wait $a $!; od -An -tu1 -N8 /dev/shm/family; rm /dev/shm/*")
        *hosts, counts = out.split("\n")
        self.assertEqual(counts.split(), ["50"] * 8)
        self.assert_spread(hosts)

    def test_a_process_moves_with_what_it_shares(self):
        (self.work / "moving.py").write_text(MOVING, encoding="ascii")
        # Who may move, but whose children may not go elsewhere, shares no less.
        for capabilities in ("+DISTANT_FORK,+CAN_MIGRATE", "-DISTANT_FORK,+CAN_MIGRATE"):
            with self.subTest(capabilities=capabilities):
                out = self.shell(f"krg_capset -d {capabilities}; krg_capset -e -DISTANT_FORK; rm -f ready; : > go; /usr/bin/python3 moving.py & p=$!\n"
                                 "for ((t = 0; t < 300; t++)); do [ -e ready ] && break; sleep 0.1; done\n"
                                 "for n in 1 2 3; do krg_migrate $p $n || echo refused; sleep 0.1; done; rm go; wait $p; echo $?\n"
                                 f"{ALL_GONE}").split()
                self.assertEqual(out, ["n3", "True", "0", "0"])

    def test_a_killed_process_leaves_nothing_behind(self):
        wait = ("import mmap, os, time; fd = os.open('/dev/shm/mine', os.O_RDWR); m = mmap.mmap(fd, 8192); "
                "m[int(os.environ['i'])] = 1; time.sleep(100)")
        lines = self.shell(
            f"{BUSY}\ntruncate -s 8192 /dev/shm/mine; for i in 1 2 3 4; do i=$i /usr/bin/python3 -c \"{wait}\" & pids+=($!); done\n"
            "for ((t = 0; t < 300; t++)); do [ $(od -An -tu1 -N8 /dev/shm/mine | tr -dc 1 | wc -c) = 4 ] && break; sleep 0.1; done\n"
            "rm /dev/shm/mine; df --output=used /dev/shm | tail -1\n"
            "exec 2>/dev/null; kill -9 ${pids[*]}; for p in ${pids[*]}; do wait $p; echo $?; done\n"
            "for ((t = 0; t < 100; t++)); do [ $(df --output=used /dev/shm | tail -1) = 0 ] && break; sleep 0.1; done\n"
            "df --output=used /dev/shm | tail -1").split()
        self.assertEqual(lines, ["8", "137", "137", "137", "137", "0"])

    def test_descriptors_go_along_also_without_a_name(self):
        out = self.shell(
            f"{BUSY}\nsleep 0.3; exec 5<>/dev/shm/file; echo before >&5\n"
            "for i in 1 2 3; do bash -c 'echo $HOSTNAME; head -1 /dev/fd/5; readlink /proc/self/fd/5'; done\n"
            "rm /dev/shm/file; bash -c 'echo $HOSTNAME; cat /dev/fd/5; echo after >&5'; bash -c 'cat /dev/fd/5'\n"
            "exec 5>&-; sleep 0.3; df --output=used /dev/shm | tail -1")
        lines = [line.strip() for line in out.split("\n")]
        hosts = [lines.pop(at) for at in (9, 6, 3, 0)]
        self.assertNotEqual(set(hosts), {"n0"})
        self.assertEqual(lines, ["before", "/dev/shm/file"] * 3 + ["before", "before", "after", "0"])


# As a user, above all what forks: there krgd serves each child's memory anew.
AS_USER = ("test_removed_pages_are_zeros_on_all_nodes_when_the_call_returns", "test_counters_and_semaphores_on_two_and_four_nodes", "test_segments_on_two_and_four_nodes",
           "test_anonymous_memory_of_forks_children_on_other_nodes", "test_a_forks_child_here_shares_on",
           "test_memory_without_a_name_lives_as_long_as_its_mappings", "test_a_process_moves_with_what_it_shares",
           "test_calls_that_krgd_answers_use_shared_memory_wherever_it_is",
           "test_access_tells_what_may_be_done", "test_mutexes_of_all_kinds_wherever_the_memory_is_mapped", "test_children_made_by_clone3_share")


def load_tests(loader, _tests, _pattern):
    if os.environ.get("KRG_TEST_AS") != "user":
        return loader.loadTestsFromTestCase(SharedMemoryTest)
    SessionCase.as_user = True
    if not SessionCase.has_shared_memory():
        return loader.loadTestsFromTestCase(OneNodeTest)
    return unittest.TestSuite(SharedMemoryTest(name) for name in AS_USER)


if __name__ == "__main__":
    session_case.main()
