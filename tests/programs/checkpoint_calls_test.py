"""Programs that say themselves what of them is saved, and when (libkrg, krg/procmgr/checkpoint.h).
SPDX-License-Identifier: GPL-2.0-or-later
"""
import json

import session_case
from checkpoint_case import CheckpointCase

CAPS = "--caps=+CHECKPOINTABLE"

BEGIN = """
import ctypes, errno, mmap, os, subprocess, sys, time
krg = ctypes.CDLL("LIBKRG", use_errno=True)
krg.cr_exclude_on.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p]
krg.cr_exclude_off.argtypes = [ctypes.c_void_p]
krg.application_set_userdata.argtypes = [ctypes.c_uint64]
CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
def error(result): return errno.errorcode[ctypes.get_errno()] if result == -1 else result
def save(): return krg.application_checkpoint(b"ckpt")
"""

# 4,096 pages that cannot be compressed, of which those from the second to the last but two are left out: a page and a byte more
# at both ends.
EXCLUDED = BEGIN + """
PAGE, PAGES = 4096, 4096
memory = mmap.mmap(-1, PAGE * PAGES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
content = os.urandom(PAGE * PAGES)
memory[:] = content
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
told = []
calls = [CALLBACK(lambda _, name=name: told.append(name) or 0) for name in ("restored", "restarted")]
assert krg.cr_register_restart_callback(calls[1], None) == 0
out = start + PAGE - 1, PAGE * (PAGES - 3) + 2
first = error(krg.cr_exclude_on(*out, ctypes.cast(calls[0], ctypes.c_void_p), None))
if os.path.exists("moves"): assert krg.migrate_self(1) == 0 and krg.get_node_id() == 1
print("excluded", first, error(krg.cr_exclude_on(*out, None, None)), error(krg.cr_exclude_off(start)), flush=True)
def state():
    got = bytes(memory)
    zeros = [page for page in range(PAGES) if got[page * PAGE:page * PAGE + PAGE] == bytes(PAGE)]
    rest = all(got[page * PAGE:page * PAGE + PAGE] == content[page * PAGE:page * PAGE + PAGE] for page in range(PAGES) if page not in set(zeros))
    return (zeros[:1], zeros[-1:], len(zeros), rest)
print("saved", save(), state(), told, flush=True)
if told: sys.exit()
print("again", save(), state(), told, flush=True)
if told: sys.exit()
assert krg.cr_exclude_off(out[0]) == 0
print("all", save(), state(), told, flush=True)
"""

# While it is in its section two values differ. Who asks meanwhile waits.
SECTION = BEGIN + """
def ask(): return subprocess.Popen(["krg_checkpoint", "-o", "ckpt", str(os.getpid())], stdout=subprocess.DEVNULL)
print(error(krg.cr_enable()), error(krg.cr_disable()), error(krg.cr_disable()), error(save()))
values = [1, 0]
asked = ask()
time.sleep(0.7)
print(asked.poll(), os.path.exists("ckpt/v1.h5"))
values[1] = 1
print(error(krg.cr_enable()), asked.wait(), os.path.exists("ckpt/v1.h5"), values, flush=True)
for i in range(200):
    krg.cr_disable()
    values[0] += 1
    if i == 100: asked = ask()
    values[1] += 1
    krg.cr_enable()
print(asked.wait(), values, flush=True)
"""

# A child on another node is in its section when its parent asks.
CHILDS_SECTION = BEGIN + """
child = os.fork()
if child == 0:
    krg.migrate_self(1)
    krg.cr_disable()
    open("in", "w").close()
    while not os.path.exists("asked"): time.sleep(0.01)
    time.sleep(0.5)
    open("out", "w").close()
    krg.cr_enable()
    while not os.path.exists("done"): time.sleep(0.01)
    krg.cr_disable()  # until it ends
    os._exit(krg.get_node_id())
while not os.path.exists("in"): time.sleep(0.01)
open("asked", "w").close()
print(save(), os.path.exists("out"), flush=True)
open("done", "w").close()
print("child on another node", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != krg.get_node_id(), save() > 0, flush=True)
"""

DATA = BEGIN + """
def data(pid):
    value = ctypes.c_uint64(7)
    return error(krg.application_get_userdata(pid, ctypes.byref(value))), value.value
print(data(os.getpid()), flush=True)
if os.fork() == 0: os._exit(krg.application_set_userdata(2 ** 64 - 3))
print(os.wait()[1], data(os.getpid()), data(2 ** 22 - 5)[0], flush=True)
if os.path.exists("moves"): print("moved", error(krg.migrate_self(1)), krg.get_node_id(), data(os.getpid()), flush=True)
print("saved", save(), data(os.getpid()), flush=True)
"""

THREAD = BEGIN + """
import json, threading
numbers, end = [], threading.Event()
def work():
    numbers.append(threading.get_native_id())
    end.wait()
threads = [threading.Thread(target=work) for i in range(2)]
for thread in threads: thread.start()
while len(numbers) < 2: time.sleep(0.01)
def nodes(): return {t["tid"]: t["node"] for p in json.loads(subprocess.check_output(["krg_where", "--json", "--threads"])) for t in p.get("threads", [])}
for node in (1, 0, 1):
    print([error(krg.thread_migrate(tid, node)) for tid in numbers], {nodes()[tid] for tid in numbers}, nodes()[os.getpid()])
print(error(krg.thread_migrate(numbers[0], 5)), error(krg.thread_migrate(2 ** 22 - 5, 1)))
end.set()
for thread in threads: thread.join()
"""


# Writes down when it is called, until there is a file "end", which it makes itself when it has been restarted.
CALLED = BEGIN + """
def say(word):
    with open("told", "a") as told: told.write(word + " ")
    if word == "again": open("end", "w").close()
calls = [CALLBACK(lambda _, word=word: say(word) or 0) for word in ("before", "on", "again")]
for register, call in zip((krg.cr_register_chkpt_thread_callback, krg.cr_register_continue_thread_callback, krg.cr_register_restart_thread_callback), calls):
    assert register(call, None) == 0
open("ready", "w").close()
while not os.path.exists("end"): time.sleep(0.01)
"""

# Ends by a signal once it has been restarted.
WAITING = BEGIN + """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(error(krg.application_restart(b"ckpt", 0)), flush=True)
if save() == 0:
    open("on", "w").close()
    time.sleep(100)
"""

# Outside of a session.
RESTARTS = BEGIN + """
import signal
def restart(*how):
    pid = krg.application_restart(*how)
    return pid if pid > 0 else error(pid)
print(restart(b"none", 0), restart(b"ckpt", 7), restart(b"ckpt", -1), flush=True)
pid = restart(b"ckpt", 0)
while not os.path.exists("on"): time.sleep(0.01)
os.environ["KRGRUN_CLUSTER"] = f"run{pid}"
print(restart(b"ckpt", 1), flush=True)
os.kill(pid, signal.SIGTERM)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.environ["PATH"] = "/"
print(restart(b"ckpt", 0))
"""


class CheckpointCallsTest(CheckpointCase):
    def program(self, text):
        (self.work / "work.py").write_text(text.replace("LIBKRG", str(self.build / "lib/libkrg.so.0")), encoding="ascii")
        return ("/usr/bin/python3", "work.py")

    def run_saving(self, text, caps=CAPS, nodes=1):
        result = self.krgrun("--cluster=none", "--threads=stay", *self.program(text), caps=caps, nodes=nodes)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        return result.stdout.splitlines()

    def go_on(self, version):
        result = self.restart(f"--restart-version={version}")
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        return result.stdout.splitlines()

    def page_bytes(self, version):
        shown = self.run_program(["krg_checkpoint", "show", "ckpt", str(version)]).stdout
        return int(next(line for line in shown.splitlines() if line.startswith("pages ")).split()[1])

    def test_memory_that_is_left_out(self):
        whole, out = "([], [], 0, True)", "([1], [4093], 4093, True)"
        self.assertEqual(self.run_saving(EXCLUDED), ["excluded 0 EBUSY EINVAL", f"saved 1 {whole} []", f"again 2 {whole} []", f"all 3 {whole} []"])
        self.assertGreater(self.page_bytes(3) - self.page_bytes(1), 4000 * 4096)
        self.assertEqual(self.go_on(1), [f"saved 0 {out} ['restored', 'restarted']"])
        self.assertEqual(self.go_on(2), [f"again 0 {out} ['restored', 'restarted']"])
        self.assertEqual(self.go_on(3), [f"all 0 {whole} ['restarted']"])

    def test_memory_of_one_that_has_moved_is_left_out(self):
        (self.work / "moves").touch()
        self.run_saving(EXCLUDED, f"{CAPS},+CAN_MIGRATE", 2)
        self.assertGreater(self.page_bytes(3) - self.page_bytes(1), 4000 * 4096)

    def test_nobody_is_saved_in_a_section(self):
        self.assertEqual(self.run_saving(SECTION), ["EALREADY 0 EALREADY EAGAIN", "None False", "0 0 True [1, 1]", "0 [201, 201]"])
        self.assertEqual(self.go_on(1)[-1], "0 [201, 201]")
        self.assertEqual(self.go_on(2), ["0 [201, 201]"])

    def test_a_child_elsewhere_is_waited_for(self):
        told = self.run_saving(CHILDS_SECTION, f"{CAPS},+CAN_MIGRATE", 2)
        self.assertEqual(told, ["1 True", "child on another node True True"])

    def test_who_is_frozen_is_called_then_and_when_it_goes_on(self):
        """And not for what is saved of it meanwhile; a restart is told of even so."""
        self.program(CALLED)
        script = ("krg_capset -e -CHECKPOINTABLE; krg_capset -d +CHECKPOINTABLE; python3 work.py & pid=$!; until [ -e ready ]; do sleep 0.05; done\n"
                  "krg_checkpoint freeze $pid; cat told; krg_checkpoint -o ckpt $pid >log; cat told; krg_checkpoint unfreeze $pid\n"
                  "until grep -q on told; do sleep 0.05; done; cat told; krg_checkpoint -o ckpt $pid >>log\n"
                  "until grep -q 'on .* on' told; do sleep 0.05; done; cat told; touch end; wait $pid")
        result = self.krgrun("--cluster=none", "bash", "-c", script, caps=f"{CAPS},+CHANGE_KERRIGHED_CAP", nodes=1)
        self.assertEqual((result.returncode, result.stdout.split(), result.stderr), (0, 3 * ["before"] + ["on"] + 2 * ["before", "on"], ""))
        for name in ("told", "end"):
            (self.work / name).unlink()
        self.assertEqual(self.go_on(1), [])
        self.assertEqual((self.work / "told").read_text(encoding="ascii"), "again ")

    def test_data_of_an_application(self):
        told = ["(0, 0)", "0 (0, 18446744073709551613) ESRCH", "saved 1 (0, 18446744073709551613)"]
        self.assertEqual(self.run_saving(DATA), told)
        self.assertEqual(self.go_on(1), ["saved 0 (0, 18446744073709551613)"])

    def test_data_of_one_that_has_moved(self):
        (self.work / "moves").touch()
        told = self.run_saving(DATA, f"{CAPS},+CAN_MIGRATE", 2)
        self.assertEqual(told[2:], ["moved 0 1 (0, 18446744073709551613)", "saved 1 (0, 18446744073709551613)"])

    def test_a_thread_is_moved_by_its_program(self):
        told = self.run_saving(THREAD, "--caps=+DISTANT_THREAD,+CAN_MIGRATE", 2)
        self.assertEqual(told, ["[0, 0] {1} 0", "[0, 0] {0} 0", "[0, 0] {1} 0", "ENODEV ESRCH"])

    def test_a_program_outside_restarts_one(self):
        self.assertEqual(self.run_saving(WAITING), ["ENOTSUP"])
        self.assertFalse((self.work / "on").exists())
        result = self.run_program([*self.program(RESTARTS)])
        self.assertEqual(result.stdout.split(), ["ENOENT", "ENOENT", "EINVAL", "EEXIST", "7", "ENOENT"], result.stderr)
        self.assertIn("pid", result.stderr)

    def test_outside_of_a_session(self):
        text = BEGIN + "print(error(krg.cr_disable()), error(krg.cr_exclude_on(4096, 4096, None, None)), error(krg.application_set_userdata(1)))"
        result = self.run_program([*self.program(text)])
        self.assertEqual(result.stdout, "ENOENT ENOENT ENOENT\n")


if __name__ == "__main__":
    session_case.main()
