"""What shells do all day, with every command placed on the least loaded of four nodes.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import signal
import subprocess
import time

import session_case
from session_case import SessionCase

MEGABYTES = 100


class ShellTest(SessionCase):
    def test_a_long_pipeline_keeps_every_byte(self):
        data = self.work / "data"
        with open(data, "wb") as file:
            for _ in range(MEGABYTES):
                file.write(os.urandom(1 << 16) * 16)
        expected = hashlib.sha256(data.read_bytes()).hexdigest()
        out = self.shell("cat data | gzip -1 | cat | gzip -d | tee copy | sha256sum; "
                         'echo "${PIPESTATUS[*]}"; sha256sum <copy; rm copy', timeout=180)
        self.assertEqual(out.split(), [expected, "-", "0", "0", "0", "0", "0", "0", expected, "-"])

    def test_the_stages_of_a_pipeline_run_on_several_nodes(self):
        out = self.shell("for i in 1 2 3 4; do "
                         "bash -c 'echo $HOSTNAME; cat' | bash -c 'cat; echo $HOSTNAME' |"
                         "bash -c 'cat; echo $HOSTNAME'; done")
        self.assertEqual(len(out.split()), 12)
        self.assertGreater(len(set(out.split())), 2)

    def test_a_pipe_from_another_node_looks_like_a_pipe(self):
        ask = "import os, stat; print(*(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (0, 1)))"
        out = self.shell(f"for i in 1 2 3 4; do true | /usr/bin/python3 -c '{ask}' | cat; done")
        self.assertEqual(out.split(), ["True"] * 8)

    def test_a_reader_that_leaves_ends_its_writer(self):
        out = self.shell('for i in 1 2 3; do yes | head -n 3; echo "${PIPESTATUS[*]}"; done')
        self.assertEqual(out.split("\n"), ["y", "y", "y", "141 0"] * 3)

    def test_two_thousand_short_processes(self):
        out = self.shell("seq 2000 | xargs -P8 -n1 sh -c 'echo $0; exit $(($0 % 2))'; echo status $?; "
                         "seq 1000 | xargs -P8 -n1 sh -c 'echo $0'; echo status $?", timeout=240)
        words = out.split("\n")
        self.assertIn("status 123", words)  # xargs: some command failed with 1-125
        self.assertEqual(words[-1], "status 0")
        numbers = sorted(int(word) for word in words if word.isdigit())
        self.assertEqual(numbers, sorted([*range(1, 2001), *range(1, 1001)]))

    def test_each_status_of_many_background_jobs(self):
        out = self.shell("for i in {1..200}; do sh -c \"exit $((i % 256))\" & pids[i]=$!; done; "
                         "for i in {1..200}; do wait ${pids[i]}; [ $? = $((i % 256)) ] || echo wrong $i; done; "
                         "echo done", timeout=120)
        self.assertEqual(out, "done")

    def test_here_documents_and_strings(self):
        out = self.shell("sort <<END\nb\na\nEND\ntr a-z A-Z <<<word; cat - <(echo three) <<<two")
        self.assertEqual(out.split(), ["a", "b", "WORD", "two", "three"])

    def test_a_large_here_document(self):
        self.assertEqual(self.shell("x=$(seq 60000); wc -l <<<\"$x\""), "60000")

    def test_substitutions_nest(self):
        self.assertEqual(self.shell('echo "$(echo "$(printf %s a; sh -c "printf b")" | sed s/ab/ok/)"'), "ok")

    def test_traps_and_signals(self):
        out = self.shell("trap 'echo usr1' USR1; trap 'echo exit' EXIT\n"
                         "sh -c 'kill -USR1 $PPID'; :\n"
                         "(sh -c 'kill -TERM $$'; exit $?) 2>/dev/null; echo $?\n"
                         "sleep 60 & kill -INT $! ; kill -KILL $!; wait $! 2>/dev/null; echo $?\n"
                         "bash -c \"trap 'echo got; exit 3' TERM; sleep 0.2 & wait\" & sleep 0.1; kill $!;"
                         " wait $!; echo $?")
        self.assertEqual(out.split("\n"), ["usr1", "143", "137", "got", "3", "exit"])

    def test_background_jobs(self):
        out = self.shell("exec 2>/dev/null; set -m; sleep 0.3 & sleep 0.2 & jobs | wc -l; wait; jobs | wc -l; "
                         "sh -c 'kill -STOP $$; echo on' & sleep 0.3; jobs -s | wc -l; "
                         "fg %% >/dev/null; kill -0 $! 2>/dev/null; echo $?")
        self.assertEqual(out.split(), ["2", "0", "1", "on", "1"])

    def test_timeout_ends_what_runs_elsewhere(self):
        start = time.monotonic()
        out = self.shell("exec 2>/dev/null; timeout 0.3 sleep 60; echo $?; "
                         "timeout -s KILL 0.3 sh -c 'sleep 60; :'; echo $?; "
                         "timeout 20 true; echo $?")
        self.assertEqual(out.split()[0], "124")
        self.assertEqual(out.split()[-2:], ["137", "0"])
        self.assertLess(time.monotonic() - start, 60)  # neither sleep was waited for

    def test_a_coprocess(self):
        out = self.shell("coproc bc; for i in 1 2 3; do echo \"$i*7\" >&${COPROC[1]}; "
                         "read -u ${COPROC[0]} x; echo $x; done; echo quit >&${COPROC[1]}; wait")
        self.assertEqual(out.split(), ["7", "14", "21"])

    def test_named_pipes(self):
        out = self.shell("mkfifo pipe; seq 1000 >pipe & sort -rn pipe | head -1; wait; rm pipe")
        self.assertEqual(out, "1000")

    def test_files_that_several_processes_append_to(self):
        out = self.shell("rm -f log; for i in {1..100}; do sh -c \"echo line $i\" >>log & done; wait; "
                         "sort -u log | wc -l; wc -l <log; (sh -c 'echo one'; sh -c 'echo two') >shared; cat shared")
        self.assertEqual(out.split(), ["100", "100", "one", "two"])

    def test_a_read_leaves_the_rest_to_the_next(self):
        self.assertEqual(self.shell("printf 'a\\nb\\nc\\n' >in; { sh -c 'read x; echo $x'; cat; } <in").split(),
                         ["a", "b", "c"])

    def test_what_a_process_inherits(self):
        out = self.shell("cd /usr; umask 027; ulimit -n 77; export WORD='a b'; "
                         "for i in 1 2 3 4 5; do sh -c 'pwd; umask; ulimit -n; echo $WORD' & done; wait")
        self.assertEqual(sorted(out.split("\n")), sorted(["/usr", "0027", "77", "a b"] * 5))

    def test_exit_status_and_signal_of_the_program(self):
        self.assertEqual(self.krgrun("sh", "-c", "exit 7").returncode, 7)
        self.assertEqual(self.krgrun("bash", "-c", "kill -TERM $$").returncode, 128 + signal.SIGTERM)
        self.assertNotEqual(self.krgrun("/nonexistent/program").returncode, 0)

    def test_input_and_output_are_the_callers(self):
        result = self.krgrun("bash", "-c", "sort | cat; echo problem >&2", input="b\na\n")
        self.assertEqual((result.stdout, result.stderr), ("a\nb\n", "problem\n"))

    def test_processes_of_all_nodes_are_seen_and_reached(self):
        out = self.shell("for i in {1..8}; do sleep 47 & done; sleep 0.3; pgrep -cx sleep; "
                         "krg_where | awk '$4 == \"sleep\" {print $2}' | sort -u | wc -l; pkill -x sleep; wait; "
                         "pgrep -cx sleep; true", stderr=subprocess.STDOUT)
        words = [word for word in out.split() if word.isdigit()]
        self.assertEqual((words[0], words[-1]), ("8", "0"), out)
        self.assertGreater(int(words[1]), 1, out)


if __name__ == "__main__":
    session_case.main()
