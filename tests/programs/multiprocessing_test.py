"""Python's multiprocessing over nodes, by all three ways of starting processes: Value, Array, Lock, Queue, Pool, Manager and
shared_memory are the same objects for all. SPDX-License-Identifier: GPL-2.0-or-later
"""
import session_case
from session_case import BUSY, SessionCase

PROGRAM = """
import multiprocessing as mp, os, sys, time
from multiprocessing import shared_memory
TIMES = 50
def work(number, value, array, lock, memory, queue, shared, start):
    block = shared_memory.SharedMemory(name=memory)
    start.wait()
    for _ in range(TIMES):
        with value.get_lock():
            value.value += 1
        with lock:
            block.buf[0:2] = (int.from_bytes(block.buf[0:2], "little") + 1).to_bytes(2, "little")
    array[number] = number * 1.5
    shared[number] = os.uname().nodename
    queue.put((number, os.uname().nodename))
    block.close()
def begin(all_are_there):
    all_are_there.wait()
def square(number):
    time.sleep(0.01)
    return number * number, os.uname().nodename
if __name__ == "__main__":
    context = mp.get_context(sys.argv[1])
    block = shared_memory.SharedMemory(create=True, size=4096)
    value, array, lock, queue = context.Value("i", 0), context.Array("d", 4), context.Lock(), context.Queue()
    start = context.Barrier(4)
    with context.Manager() as manager:
        shared = manager.dict()
        all = [context.Process(target=work, args=(n, value, array, lock, block.name, queue, shared, start)) for n in range(4)]
        for process in all: process.start()
        told = sorted(queue.get() for _ in all)
        for process in all: process.join()
        hosts = {host for _, host in told}
        same = [shared[n] for n, _ in told] == [host for _, host in told]
    print("counted", value.value, int.from_bytes(block.buf[0:2], "little"))
    print("array", list(array), "exit codes", [process.exitcode for process in all])
    print("queue and manager", [n for n, _ in told], same)
    with context.Pool(4, begin, (start,)) as pool:
        squares = pool.map(square, range(12), chunksize=1)
    print("pool", [square for square, _ in squares])
    print("processes elsewhere", len(hosts) > 1, "pool elsewhere", len({host for _, host in squares}) > 1)
    block.close(); block.unlink()
"""
EXPECTED = """counted 200 200
array [0.0, 1.5, 3.0, 4.5] exit codes [0, 0, 0, 0]
queue and manager [0, 1, 2, 3] True
pool [0, 1, 4, 9, 16, 25, 36, 49, 64, 81, 100, 121]
"""


class MultiprocessingTest(SessionCase):
    def setUp(self):
        if not self.has_shared_memory():
            self.skipTest("no /dev/userfaultfd for an ordinary user")

    def run_method(self, method):
        (self.work / "objects.py").write_text(PROGRAM)
        return self.shell(f"{BUSY}\nsleep 0.3; python3 objects.py {method}", timeout=120)

    def test_spawn(self):
        self.assertEqual(self.run_method("spawn"), EXPECTED + "processes elsewhere True pool elsewhere True")

    def test_fork(self):
        self.assertEqual(self.run_method("fork"), EXPECTED + "processes elsewhere True pool elsewhere True")

    def test_forkserver(self):
        out = self.run_method("forkserver")
        self.assertEqual(out.rsplit("\n", 1)[0] + "\n", EXPECTED)


if __name__ == "__main__":
    session_case.main()
