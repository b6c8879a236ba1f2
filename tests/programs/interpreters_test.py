"""Programs that start processes in ways of their own: python3, perl, busybox, static binaries.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import subprocess
import textwrap

import session_case
from session_case import SessionCase

STATIC_PROGRAM = r"""
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
int main(int argc, char **argv)
{
    char host[64];
    gethostname(host, sizeof host);
    if (argc > 1) {
        char line[128];
        int n = snprintf(line, sizeof line, "%s %s\n", argv[1], host);
        return write(1, line, n) == n ? 40 + argv[1][0] - '0' : 1;
    }
    for (int i = 0; i < 6; i++) {
        char name[] = {(char)('0' + i), 0};
        char *const args[] = {argv[0], name, NULL};
        pid_t pid;
        int status;
        if (i % 3 == 0) {
            if (posix_spawn(&pid, argv[0], NULL, NULL, args, environ) != 0) return 2;
        } else if ((pid = i % 3 == 1 ? fork() : vfork()) == 0) {
            execv(argv[0], args);
            _exit(127);
        }
        if (waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 40 + i) return 3;
    }
    return 0;
}
"""


class InterpretersTest(SessionCase):
    def script(self, name, text):
        path = self.work / name
        path.write_text(textwrap.dedent(text))
        return path

    def test_python_subprocess(self):
        self.script("spawn.py", """
            import concurrent.futures, subprocess, sys
            def one(i):
                return subprocess.run(["sh", "-c", f"cat; echo {i}; exit {i % 7}"], input=b"in ",
                                      capture_output=True)
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for i, result in enumerate(pool.map(one, range(64))):
                    assert result.stdout == b"in %d\\n" % i, result
                    assert result.returncode == i % 7, result
            try:
                subprocess.run(["sleep", "60"], timeout=0.2)
            except subprocess.TimeoutExpired:
                print("ended")
            assert subprocess.Popen(["nothing-of-this-name"]) is None
            """)
        result = self.krgrun("/usr/bin/python3", "spawn.py")
        self.assertEqual(result.stdout, "ended\n", result.stderr)
        self.assertIn("FileNotFoundError", result.stderr)

    def test_python_multiprocessing_by_spawn(self):
        self.script("pool.py", """
            import multiprocessing, os
            def square(x):
                return x * x, os.uname().nodename
            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(4) as pool:
                    results = pool.map(square, range(400), chunksize=5)
                print(sum(r[0] for r in results), len({r[1] for r in results}))
            """)
        out = self.krgrun("/usr/bin/python3", "pool.py", check=True).stdout.split()
        self.assertEqual(out[0], str(sum(x * x for x in range(400))))

    def test_perl(self):
        self.script("spawn.pl", r"""
            use IPC::Open2;
            my $pid = open2(my $out, my $in, "sort", "-n") or die;
            print $in "$_\n" for (3, 1, 2);
            close $in;
            print <$out>;
            waitpid $pid, 0;
            print "status ", system("exit 5;") >> 8, "\n";
            print "words ", `echo one two | wc -w`;
            open my $reader, "-|", "seq 3" or die;
            print <$reader>;
            close $reader;
            $SIG{ALRM} = sub { print "alarm\n" };
            kill "ALRM", $$ if !system("true");
            """)
        self.assertEqual(self.krgrun("perl", "spawn.pl", check=True).stdout.split(),
                         "1 2 3 status 5 words 2 1 2 3 alarm".split())

    def test_busybox(self):
        out = self.shell("busybox sh -c 'busybox seq 20000 | busybox sort -rn | busybox head -n 2; "
                         "for i in 1 2 3; do busybox sleep 0.1 & done; wait; busybox false || echo no'")
        self.assertEqual(out.split(), ["20000", "19999", "no"])

    def test_a_static_program_that_forks_vforks_and_spawns(self):
        source = self.script("static.c", STATIC_PROGRAM)
        program = self.work / "static"
        subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
        out = self.krgrun("./static", check=True).stdout.split()
        self.assertEqual(out[::2], [str(i) for i in range(6)])

    def test_env_scripts_and_long_arguments(self):
        script = self.script("hash-bang", "#!/usr/bin/env -S sh -e\necho \"$# ${#1}\"\n")
        script.chmod(0o755)
        self.assertEqual(self.shell("./hash-bang $(printf 'x%.0s' {1..100000}) b & wait"), "2 100000")


if __name__ == "__main__":
    session_case.main()
