"""krg_clone: a second process like one that runs.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from session_case import SessionCase

CAPS = "--caps=+CAN_MIGRATE"

# Counts; at 'go' tells what it is, once for each process.
COUNTER = """
import os, signal, sys, threading, time
seen, me = [], threading.current_thread()
def work(number):
    while not os.path.exists("go"):
        seen.append(number)
        time.sleep(0.002)
threads = [threading.Thread(target=work, args=(n,)) for n in range(int(sys.argv[1]))]
for thread in threads: thread.start()
signal.signal(signal.SIGUSR1, lambda *_: open("told", "a").write(f"{os.getpid()}\\n"))
value = "unchanged"
open("ready", "w").close()
while not os.path.exists("go"): time.sleep(0.002)
for thread in threads: thread.join()
out = os.open("out", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
os.write(out, f"{os.getpid()} {os.getppid() == int(sys.argv[2])} {os.uname().nodename} {len(threads)} {value} {sorted(set(seen))}\\n".encode())
"""


class CloneTest(SessionCase):
    def cloned(self, threads, node):
        (self.work / "counter.py").write_text(COUNTER, encoding="ascii")
        out = self.shell("rm -f go ready out told; /usr/bin/python3 counter.py %d $$ & pid=$!; until [ -e ready ]; do sleep 0.05; done\n"
                         "copy=$(krg_clone $pid %s) || exit; [ $copy != $pid ] && echo another; krg_where $pid $copy | awk '{print $2}'\n"
                         "ps -o pgid= -p $pid | tr -d ' ' >group; ps -o pgid= -p $copy | tr -d ' ' | diff group - && echo same group\n"
                         "kill -USR1 $copy; until [ -s told ]; do sleep 0.05; done; [ $(cat told) = $copy ] && echo told\n"
                         "touch go; wait $pid; echo $?; until [ $(wc -l <out) = 2 ]; do sleep 0.05; done; while kill -0 $copy 2>/dev/null; do sleep 0.05; done\n"
                         "grep -c \"^$pid \" out; grep -c \"^$copy \" out; cut -d' ' -f2,4- out" % (threads, node), caps=CAPS)
        return out.split("\n")

    def test_on_the_same_node(self):
        self.assertEqual(self.cloned(0, ""), ["another", "0", "0", "same group", "told", "0", "1", "1"] + ["True 0 unchanged []"] * 2)

    def test_on_another_node(self):
        self.assertEqual(self.cloned(0, "2"), ["another", "0", "2", "same group", "told", "0", "1", "1"] + ["True 0 unchanged []"] * 2)

    def test_with_threads(self):
        for node in ("0", "3"):
            with self.subTest(node=node):
                out = self.cloned(4, node)
                self.assertEqual(out[:8], ["another", "0", node, "same group", "told", "0", "1", "1"])
                self.assertEqual(out[8:], ["True 4 unchanged [0, 1, 2, 3]"] * 2)

    def test_of_one_that_has_moved(self):
        out = self.shell("sleep 100 & pid=$!; krg_migrate $pid 2; copy=$(krg_clone $pid); krg_where $pid $copy | awk '{print $2}'\n"
                         "copy2=$(krg_clone $pid 0); krg_where $copy2 | awk '{print $2}'; kill $copy $copy2; sleep 0.3; krg_where $copy $copy2 2>&1 | wc -l\n"
                         "kill $pid; wait $pid; echo $?", caps=CAPS)
        self.assertEqual(out.split(), ["2", "2", "0", "2", "143"])

    def test_refusals(self):
        result = self.krgrun("bash", "-c", "sleep 100 & krg_clone $!; krg_clone $! 77; krg_clone 999999; krg_clone; kill $!", caps="")
        lines = result.stderr.split("\n")
        self.assertIn("CAN_MIGRATE is not effective", lines[0])
        self.assertIn("there is no node 77", lines[1])
        self.assertIn("999999", lines[2])
        self.assertIn("PID and perhaps NODE", lines[3])


if __name__ == "__main__":
    session_case.main()
