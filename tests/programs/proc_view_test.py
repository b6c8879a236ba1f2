"""Unmodified tools that look at processes and at the machine see the whole cluster.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import re
import shutil

import session_case
from session_case import NODES, SessionCase

# Starts six programs that wait; at least one of them on another node than the shell.
START = """
for i in 1 2 3 4 5 6; do sleep 97 & done
for try in $(seq 100); do [ "$(pgrep -cx sleep)" = 6 ] && break; sleep 0.1; done
here=$(hostname)
remote=$(krg_where | awk -v here="$here" '$4 == "sleep" && $3 != here { print $1; exit }')
[ -n "$remote" ] || { echo nothing runs elsewhere; exit 1; }
krg_capset -d -DISTANT_FORK -e -DISTANT_FORK
"""


# pidfd_send_signal(2) by /proc/PID: another number than the siginfo's, no siginfo, and both alike.
SEND_BY_FOLDER = """
import ctypes, errno, os, signal, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
folder = os.open("/proc/" + sys.argv[1], os.O_DIRECTORY)
info = ctypes.create_string_buffer(struct.pack("iiiiii", signal.SIGCONT, 0, -1, 0, os.getpid(), os.getuid()), 128)
for number, address in ((signal.SIGKILL, info), (signal.SIGCONT, ctypes.c_void_p(8)), (signal.SIGCONT, info)):
    failed = libc.syscall(424, folder, int(number), address, 0) != 0
    print(errno.errorcode[ctypes.get_errno()] if failed else 0)
"""


class ProcViewTest(SessionCase):
    def on_cluster(self, script, **options):
        return self.shell(START + script + "\nkill $(jobs -p)\nwait 2>/dev/null\ntrue", **options)

    def test_ps_sees_all_nodes(self):
        out = self.on_cluster("echo shell $$; ps -eo pid,ppid,args; echo; ps aux; echo; ps -ef --forest")
        by_parent, aux, forest = out.split("\n\n")
        shell = re.search(r"shell (\d+)", by_parent)[1]
        children = re.findall(rf"^ *\d+ +{shell} sleep 97$", by_parent, re.M)
        self.assertEqual(len(children), 6, by_parent)
        self.assertEqual(len(re.findall(r" sleep 97$", aux, re.M)), 6, aux)
        self.assertEqual(len(re.findall(r" \\_ sleep 97$", forest, re.M)), 6, forest)
        self.assertEqual(len(re.findall(r"^ *1 ", by_parent, re.M)), 1, "one krgd")

    def test_tools_that_find_processes(self):
        out = self.on_cluster("pgrep -x sleep | wc -l; pidof sleep | wc -w; pgrep -f '^sleep 9[7]' | wc -l; "
                              "top -b -n1 | grep -c ' sleep *$'; pstree -Ap $$ | grep -c 'sleep([0-9]*)'")
        self.assertEqual(out.split(), ["6", "6", "6", "6", "6"])

    def test_killall_reaches_all_nodes(self):
        self.assertEqual(self.shell(START.replace("krg_capset", "true krg_capset") +
                                    "killall sleep; wait 2>/dev/null; pgrep -cx sleep; true"), "0")

    def test_a_signal_by_a_process_folder_has_the_number_that_its_siginfo_says(self):
        out = self.on_cluster("python3 - $remote <<'END'\n" + SEND_BY_FOLDER + "END\n")
        self.assertEqual(out.split(), ["EINVAL", "EFAULT", "0"])

    def test_files_of_a_remote_process(self):
        out = self.on_cluster("""
cd /proc/$remote
cat comm; tr '\\0' ' ' < cmdline; echo
awk '/^(Pid|PPid):/ { print $1, $2 }' status
echo shell $$
tr '\\0' '\\n' < environ | grep -c ^PATH=
readlink exe cwd; ls task; ls fd | wc -l; grep -c stack maps
grep -c . cgroup limits | head -1
echo 500 > oom_score_adj; cat oom_score_adj
kill -STOP $remote; sleep 0.5; awk '{ print $3 }' stat; kill -CONT $remote
""")
        lines = out.splitlines()
        shell = re.search(r"shell (\d+)", out)[1]
        self.assertEqual(lines[:2], ["sleep", "sleep 97 "])
        self.assertEqual(lines[3], f"PPid: {shell}")
        self.assertEqual(lines[5], "1")
        self.assertIn("sleep", lines[6])
        self.assertEqual(lines[8], lines[2].split()[1], "its only thread")
        self.assertEqual(lines[-2:], ["500", "T"], out)

    def test_processors_and_memory_add_up(self):
        cpus = len(os.sched_getaffinity(0))
        out = self.shell("nproc --all; getconf _NPROCESSORS_ONLN; getconf _NPROCESSORS_CONF; "
                         "grep -c ^processor /proc/cpuinfo; grep -c ^cpu[0-9] /proc/stat; "
                         "lscpu | awk '/^CPU\\(s\\):/ { print $2 }'; lscpu -p=cpu | grep -vc '#'", caps=None)
        self.assertEqual(out.split(), [str(NODES * cpus)] * 7, out)
        with open("/proc/meminfo", encoding="ascii") as meminfo:
            own = int(meminfo.readline().split()[1])
        out = self.shell("free -k | awk '/^Mem/ { print $2 }'; uptime | grep -c load; vmstat | wc -l; "
                         "cat /proc/nodes/nrnodes; grep -h MemTotal /proc/nodes/node3/meminfo", caps=None)
        total, up, vmstat, nodes, _, node3, _ = out.split()
        self.assertEqual((int(total), up, vmstat, nodes, int(node3)), (NODES * own, "1", "3", str(NODES), own))

    def test_what_shared_objects_take_and_have_done(self):
        out = self.shell("cd /proc/kddm; cat meminfo; echo --; ls; echo --; cat setstat; echo --; "
                         "for set in $(ls -d */ 2>/dev/null); do cat $set/setinfo $set/objectstates $set/setstat; done; "
                         "echo --; cat 0000000000000000/setinfo 2>&1 || true", caps=None)
        memory, names, stat, sets, missing = [part.strip().splitlines() for part in out.split("--\n")]
        self.assertEqual([line.split()[0] for line in memory],
                         ["node"] + [str(n) for n in range(NODES)] + ["sum"], out)
        self.assertEqual(names[-2:], ["meminfo", "setstat"], out)
        self.assertEqual(stat[0].split()[:3], ["set", "objects", "owned"], out)
        self.assertEqual(len(names) - 2, len(stat) - 1, out)
        self.assertEqual(len([line for line in sets if line.startswith("object_bytes:")]), len(names) - 2, out)
        self.assertIn("No such file", missing[0])

    def test_a_capability_shows_the_own_node(self):
        cpus = len(os.sched_getaffinity(0))
        script = ("krg_capset -d +SEE_LOCAL_PROC_STAT; grep -c ^processor /proc/cpuinfo; "
                  "getconf _NPROCESSORS_ONLN; lscpu | awk '/^CPU\\(s\\):/ { print $2 }'")
        self.assertEqual(self.shell(script, caps=None).split(), [str(cpus)] * 3)

    def test_busybox_python_and_perl(self):
        if shutil.which("busybox") is None:
            self.skipTest("busybox is not installed")
        out = self.on_cluster("""
busybox ps | grep -c ' sleep 9[7]$'
busybox top -b -n1 | grep -c ' sleep 9[7]$'
python3 - <<'P'
import os, re
names = [open(f"/proc/{p}/comm").read() for p in os.listdir("/proc") if p.isdigit()]
print(names.count("sleep\\n"), os.cpu_count(), open("/proc/self/comm").read().strip())
P
perl -e 'print scalar(grep { readlink("/proc/$_/exe") =~ m(/sleep$) } map { m((\\d+)$) } glob("/proc/[0-9]*")), "\\n"'
""")
        cpus = NODES * len(os.sched_getaffinity(0))
        self.assertEqual(out.splitlines(), ["6", "6", f"6 {cpus} python3", "6"])


if __name__ == "__main__":
    session_case.main()
