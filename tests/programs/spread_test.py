"""Processes whose threads run on several nodes: unmodified programs behave as natively.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading
import time
import unittest

import session_case
from session_case import SessionCase

CAPS = "--caps=+DISTANT_THREAD"
# A thread may stay where it began, which has least to do at that moment: so often such a program is run at the most.
MOST_RUNS = 12


class SpreadTest(SessionCase):
    settings = {"KRGRUN_THREADS": "stay"}  # whether or not several nodes pay

    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def program(self, name="spread"):
        return self.build / "test-bin/programs" / name

    def run_spread(self, *command, caps=CAPS, **options):
        return self.krgrun(*command, caps=caps, timeout=120, **options)

    def natively(self, *command, **env):
        return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=60, check=False,
                              env={**os.environ, **env})

    def assert_as_natively(self, *command, nodes=2, **env):
        native = self.natively(*command, **env)
        spread = self.run_spread(*command, nodes=nodes, env=env)
        self.assertEqual((spread.returncode, spread.stdout, spread.stderr),
                         (native.returncode, native.stdout, native.stderr), f"{command} on {nodes} nodes")

    def test_threads_share_memory_over_nodes(self):
        for nodes, threads in ((2, 2), (2, 4), (3, 3), (4, 4)):
            where = self.work / f"where.{nodes}.{threads}"
            native = self.natively(self.program(), "work", threads)
            spread = self.run_spread(self.program(), "work", threads, f"krg_where --json > {where}", nodes=nodes)
            self.assertEqual((spread.returncode, spread.stdout, spread.stderr), (0, native.stdout, ""))
            found = [p["threads"] for p in json.loads(where.read_text(encoding="ascii")) if p["command"] == "spread"]
            self.assertEqual(len(found), 1)
            places = [thread["node"] for thread in found[0]]
            per_node = [places.count(node) for node in range(nodes)]
            self.assertEqual(sum(per_node), threads, found)
            self.assertEqual(max(per_node) - min(per_node), 0, f"{nodes} nodes: {found}")

    def test_without_the_capability_threads_stay(self):
        where = self.work / "where.native"
        result = self.run_spread(self.program(), "work", "2", f"krg_where --json > {where}", caps="", nodes=2)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertFalse([p for p in json.loads(where.read_text(encoding="ascii")) if "threads" in p])

    def test_a_static_program(self):
        self.assert_as_natively(self.program("spread_static"), "work", "2")

    def test_cxx_threads(self):
        self.assert_as_natively(self.program("spread_threads"), nodes=3)

    def test_tbb(self):
        if not self.program("spread_tbb").exists():
            self.skipTest("built without oneTBB")
        for nodes in (2, 4):
            where = self.work / f"where.{nodes}"
            native = self.natively(self.program("spread_tbb"))
            spread = self.run_spread(self.program("spread_tbb"), f"krg_where --json > {where}", nodes=nodes)
            self.assertEqual((spread.returncode, spread.stdout, spread.stderr), (0, native.stdout, ""))
            (threads,) = [p["threads"] for p in json.loads(where.read_text(encoding="ascii")) if p["command"] == "spread_tbb"]
            self.assertEqual({thread["node"] for thread in threads}, set(range(nodes)), threads)

    def test_openmp_under_the_system_runtime(self):
        self.assert_as_natively(self.program("spread_openmp"), OMP_NUM_THREADS="4")

    def test_words_are_waited_for(self):
        for nodes in (2, 3):
            self.assert_as_natively(self.program("spread_futexes"), nodes=nodes)

    def test_memory_changes_for_all(self):
        for nodes in (2, 3):
            self.assert_as_natively(self.program("spread_mappings"), self.program("spread_library.so"), nodes=nodes)

    def test_several_threads_of_a_node_meet_new_memory_at_once(self):
        for nodes, threads in ((2, 8), (3, 6)):
            self.assert_as_natively(self.program("spread_crowd"), threads, 10, nodes=nodes)

    def test_signals_reach_the_thread(self):
        self.assert_as_natively(self.program(), "signals")

    def test_a_fault_ends_the_process(self):
        result = self.run_spread("bash", "-c", f"{self.program()} fault; echo $?", nodes=2)
        self.assertEqual(result.stdout, "139\n", result.stderr)

    def test_a_thread_ends_the_process(self):
        self.assert_as_natively(self.program(), "exit")

    def test_a_thread_execs(self):
        self.assert_as_natively(self.program(), "exec")

    def test_what_it_execs_is_spread_anew(self):
        where = self.work / "where.exec"
        natively = self.natively(self.program(), "work", "2").stdout
        for _ in range(MOST_RUNS):
            result = self.run_spread(self.program(), "exec", f"exec {self.program()} work 2 'krg_where --json > {where}'", nodes=2)
            self.assertEqual((result.returncode, result.stdout), (0, natively), result.stderr)
            found = [p.get("threads", []) for p in json.loads(where.read_text(encoding="ascii")) if p["command"] == "spread"]
            nodes = [sorted(t["node"] for t in threads) for threads in found]
            if nodes == [[0, 1]]:
                return
        self.fail(f"its threads are on nodes {nodes}")

    def test_threads_go_to_the_processors_that_they_are_bound_to(self):
        each = len(os.sched_getaffinity(0))
        for nodes in (2, 3):
            # One that another thread binds may be under way for a while.
            wanted = [0] + [i // each for i in range(nodes * each)]
            look = ("import json, sys; (p,) = [p for p in json.load(sys.stdin) if p['command'] == 'spread_affinity']; "
                    "sys.exit([t['node'] for t in sorted(p['threads'], key=lambda t: t['tid'])] != {})")
            bound, others = (f"krg_where --json | python3 -c \"{look.format(on)}\"" for on in (wanted, [0] + wanted[:0:-1]))
            spread = self.run_spread(self.program("spread_affinity"), bound, f"until {others}; do sleep 0.1; done", nodes=nodes)
            self.assertEqual((spread.returncode, spread.stdout, spread.stderr), (0, f"{nodes * each} processors\n", ""))

    def test_a_thread_is_made_bound_while_its_process_is_being_spread(self):
        done = self.run_spread("sh", "-c", 'for i in 1 2 3 4 5 6 7 8; do "$1" "made bound"; done', "sh", self.program("spread_affinity"), nodes=2)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_calls_find_what_is_behind_second_pointers(self):
        for nodes in (2, 3):
            self.assert_as_natively(self.program("spread_vectors"), nodes=nodes)
        for node in (0, 1):
            done = self.run_spread(self.program("spread_vectors"), f"krg_migrate %d {node}", caps="--caps=+DISTANT_THREAD,+CAN_MIGRATE", nodes=2)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "0 failures\n", ""))

    def test_calls_that_krgd_answers_find_their_memory(self):
        for nodes in (2, 3):
            self.assert_as_natively(self.program(), "calls", nodes=nodes)

    def test_answers_go_to_a_page_that_all_nodes_write(self):
        for nodes in (2, 4):
            self.assert_as_natively(self.program("spread_answers"), nodes=nodes)

    def test_what_threads_wait_for_is_told(self):
        def neighbours(how, has_both):
            for _ in range(MOST_RUNS):
                told = self.krgrun(how, self.program(), "neighbours", caps=CAPS, nodes=2)
                self.assertEqual((told.returncode, told.stdout), (0, "20 20\n"), told.stderr)
                if has_both(told.stderr):
                    break
            return told.stderr
        (process,) = json.loads(neighbours("--stats=json", lambda told: '"neighbours+24 of spread"' in told))
        self.assertEqual(process["command"], "spread")
        threads = process["threads"]
        self.assertTrue(any(t["faults"] > 0 and t["fault_ms"] > 0 for t in threads), process)
        self.assertTrue(any(t["futexes"] > 0 and t["futex_ms"] > 0 for t in threads), process)
        region = next(r for r in process["regions"] if r["name"] == "neighbours of spread")
        self.assertGreater(region["ping_pong"], 10)
        self.assertGreaterEqual(region["bytes"], region["invalidations"] * 4096)
        falsely = [page["writers"] for page in process["false_sharing"] if "neighbours of spread" in page["text"]]
        self.assertEqual(falsely, [[{"node": 0, "words": ["neighbours of spread"]}, {"node": 1, "words": ["neighbours+24 of spread"]}]])
        text = neighbours("--stats", lambda told: "False sharing" in told)
        self.assertIn("False sharing: neighbours of spread", text)
        alone = self.krgrun("--stats", "true", nodes=2)
        self.assertEqual((alone.returncode, alone.stderr), (0, "krgrun: no process had threads on several nodes\n"))

    def test_threads_are_moved(self):
        out = self.shell(
            f"mkfifo input; : > output; {self.program()} moves < input >> output & exec 3> input; "
            "until read first computing waiting < output; do sleep 0.05; done; "
            "for step in '1 2 0' '2 0 1' '0 1 2' '1 0 2' '0 0 0' '2 1 1' '1 2 2' '0 1 0'; do set -- $step; "
            "krg_migrate $first $1; krg_migrate $computing $2; krg_migrate $waiting $3; "
            "krg_where --json > where; python3 -c '"
            "import json, sys; t = {t[\"tid\"]: t[\"node\"] for p in json.load(open(\"where\")) for t in p.get(\"threads\", [])}; "
            "print(*(t[int(tid)] for tid in sys.argv[1:]))' $first $computing $waiting; done; "
            "krg_migrate $computing 9 2> error; echo refused $?; exec 3>&-; wait $!; echo status $?; tail -1 output",
            caps=CAPS + ",+CAN_MIGRATE", nodes=3)
        self.assertEqual(out.splitlines(), ["1 2 0", "2 0 1", "0 1 2", "1 0 2", "0 0 0", "2 1 1", "1 2 2", "0 1 0",
                                            "refused 1", "status 0", "wrong 0, woken 1"])

    def test_processor_time_is_the_processs_wherever_it_was_used(self):
        for nodes in (2, 4):
            self.assert_as_natively(self.program("spread_times"), "calls", 4, nodes=nodes)

    def test_processor_time_is_told_to_the_parent(self):
        start = "os.fork(); pid or os.execv(sys.argv[1], sys.argv[1:])"
        # A parent whose own calls are its own node's business, and (posix_spawn makes it one) a spread one.
        for how, status, start in (("exit", 3, start), ("thread", 3, start), ("last", 0, start), ("signal", -15, start), ("exec", 0, start),
                                   ("exit", 3, "os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)")):
            look = (f"import os, sys; pid = {start}; _, status, u = os.wait4(pid, 0); "
                    "c = os.times(); print(os.waitstatus_to_exitcode(status), u.ru_utime + u.ru_stime >= 0.8, "
                    "c.children_user + c.children_system >= 0.75)")  # ticks, four of them not full
            result = self.run_spread("python3", "-c", look, self.program("spread_times"), how, nodes=2)
            self.assertEqual((result.returncode, result.stdout), (0, f"{status} True True\n"), (how, result.stderr))

    def test_limits_of_processor_time_hold_wherever_it_is_used(self):
        self.assert_as_natively(self.program("spread_times"), "warned", nodes=2)
        for how, signal in (("limited", 24), ("killed", 9)):  # krgrun tells of a signal as a shell does
            result = self.run_spread(self.program("spread_times"), how, nodes=2)
            self.assertEqual((result.returncode, result.stdout), (128 + signal, ""), result.stderr)

    def test_timers_of_processor_time_count_all_nodes(self):
        for when in ("before", "after"):
            self.assert_as_natively(self.program("spread_times"), "profiled", when, nodes=2)
        result = self.run_spread(self.program("spread_times"), "alarmed", nodes=2)
        self.assertEqual((result.returncode, result.stdout), (128 + 26, ""), result.stderr)

    def test_waitid_tells_what_a_child_used_elsewhere(self):
        # Seven threads of 0.2 s each and a little more, half of them elsewhere.
        self.assert_as_natively(self.program("spread_times"), "child", self.program("spread_times"), "calls", "7", nodes=2)

    def test_tools_show_arguments_times_and_states(self):
        # A program that has just looked the process up is told of it as it was then, for a second.
        ps = ("sleep 1.1; ps -o cputimes= -o stat= -o args= -p %1$d; tr '\\0' '\\n' < /proc/%1$d/environ | grep ^MARK=; "
              "cat /proc/%1$d/task/%2$d/comm; pgrep -f '^[^ ]*spread_times calls 4' | grep -cx %1$d; COLUMNS=120 top -b -n1 -p %1$d | grep -c spread_times")
        result = self.run_spread(self.program("spread_times"), "calls", "4", ps, nodes=2, env={"MARK": "of spread"})
        lines = result.stdout.splitlines()
        self.assertEqual((result.returncode, result.stderr, lines[-1:]), (0, "", ["0 failures"]), result.stdout)
        times, state, *arguments = lines[0].split(None, 5)
        self.assertGreaterEqual(int(times), 0)
        self.assertRegex(state, "^[RSD]")
        self.assertEqual(arguments[:3], [str(self.program("spread_times")), "calls", "4"])
        self.assertEqual(lines[1:-1], ["MARK=of spread", "spread_times", "1", "1"])

    def test_tools_on_other_nodes_show_the_same(self):
        (self.work / "look").write_text("""hostname; tr '\\0' ' ' < /proc/$1/cmdline; echo
            until awk '{ exit !($14 > 0) }' /proc/$1/stat; do sleep 0.1; done; awk '{ print $3 }' /proc/$1/stat
            """, encoding="ascii")
        out = self.shell(f"{self.program()} spin > pid & until krg_where --json --threads | grep -q '\"node\":1'; do sleep 0.1; done; "
                         "krg_capset -e +DISTANT_FORK; for i in 1 2 3 4 5 6 7 8; do sh look $!; done; kill $!; wait 2> /dev/null; true",
                         caps=CAPS, nodes=2).splitlines()
        self.assertIn("n1", out[0::3], out)
        self.assertEqual(set(out[1::3]), {f"{self.program()} spin "}, out)
        self.assertLessEqual(set(out[2::3]), set("RSD"), out)

    def ticks(self, command):
        """Processor time of all processes of that name, on all nodes."""
        total = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                text = pathlib.Path("/proc", pid, "stat").read_text(encoding="ascii", errors="replace")
            except OSError:
                continue
            name, fields = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
            total += int(fields[11]) + int(fields[12]) if name == command else 0
        return total

    def until(self, is_so, what, seconds=60):
        deadline = time.monotonic() + seconds
        while not is_so():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.1)

    def test_a_stop_stops_threads_everywhere(self):
        name = f"stops{os.getpid()}"[:15]
        shutil.copy(self.program(), self.work / name)
        end = self.work / "end"
        script = (f"exec 2> /dev/null; set -m; ./{name} spin > pid & until krg_where --json --threads | grep -q '\"node\":1' || [ -e end ]; do sleep 0.1; done; "
                  "for round in 1 2; do kill -STOP %1; until jobs -s | grep -q Stopped || [ -e end ]; do sleep 0.05; done; touch stopped$round; "
                  "until [ -e continue$round ] || [ -e end ]; do sleep 0.05; done; kill -CONT %1; "
                  "until jobs -r | grep -q Running || [ -e end ]; do sleep 0.05; done; touch continued$round; "
                  "until [ -e next$round ] || [ -e end ]; do sleep 0.05; done; done; "
                  "until [ -e end ]; do sleep 0.05; done; kill %1; wait %1; echo $?")
        out = []
        session = threading.Thread(target=lambda: out.append(self.shell(script, caps=CAPS, nodes=2)))
        session.start()
        try:
            for turn in (1, 2):
                self.until((self.work / f"stopped{turn}").exists, "the process is not seen to stop")
                before = self.ticks(name)

                def stands():
                    nonlocal before
                    last, before = before, self.ticks(name)
                    return last == before
                self.until(stands, "it computes on")
                time.sleep(0.5)
                self.assertEqual(self.ticks(name), before, "it computes though it is stopped")
                (self.work / f"continue{turn}").touch()
                self.until(lambda: self.ticks(name) > before + 10, "it does not go on")
                self.until((self.work / f"continued{turn}").exists, "the process is not seen to go on")
                (self.work / f"next{turn}").touch()
        finally:
            end.touch()
            session.join()
        self.assertEqual(out, ["143"])

    def test_libraries_are_opened(self):
        self.assert_as_natively(self.program(), "libraries")

    def test_what_is_shared_with_others_is_mapped(self):
        for nodes in (2, 3):
            self.assert_as_natively(self.program("spread_shared"), nodes=nodes)

    def test_children(self):
        for nodes in (2, 3):
            self.assert_as_natively(self.program(), "children", nodes=nodes)

    def test_the_whole_process_is_killed_and_nothing_is_left(self):
        out = self.shell(
            f"for signal in TERM KILL; do {self.program()} spin > pid & sleep 0.5; krg_where --json --threads > where.$signal; "
            "kill -$signal $!; wait $! 2> /dev/null; echo $?; done; ps -e -o comm= | grep -c '^spread$'; "
            "for ((i = 0; i < 100; i++)); do kradm kddm --json > left; grep -q '\"set\": \"5350' left || break; sleep 0.1; done; "
            "((i < 100)) && echo gone", caps=CAPS, nodes=2)
        self.assertEqual(out.split(), ["143", "137", "0", "gone"])
        for name in ("TERM", "KILL"):
            processes = json.loads((self.work / f"where.{name}").read_text(encoding="ascii"))
            nodes = [t["node"] for p in processes if p["command"] == "spread" for t in p["threads"]]
            self.assertEqual(sorted(nodes), [0, 1])


if __name__ == "__main__":
    session_case.main()
