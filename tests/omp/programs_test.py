"""Debian's own programs that were built with OpenMP: what they make over nodes is what they make on one under the system's libgomp.

environment: KRG_BUILD_DIR, KRG_TEST_AS; tests/programs in PYTHONPATH
SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import random

import session_case
from session_case import SessionCase

THREADS = 4
ACIDS = "ACDEFGHIKLMNPQRSTVWY"


def changed(letters, share, alphabet, chance):
    return [chance.choice(alphabet) if chance.random() < share else letter for letter in letters]


def fasta(path, sequences):
    path.write_text("".join(f">s{number}\n{''.join(letters)}\n" for number, letters in enumerate(sequences)), encoding="ascii")


class ProgramsTest(SessionCase):
    def setUp(self):
        if self.as_user and not (self.userfaultfd_minor() if os.geteuid() == 0
                                 else os.access("/dev/userfaultfd", os.R_OK | os.W_OK)):
            self.skipTest("no /dev/userfaultfd for an ordinary user")
        self.chance = random.Random(self.id())

    def everywhere(self, *program):
        """A run natively, then on 2 nodes as it is by default, and on 2 and 4 with all threads kept there."""
        for where in ([], ["krgrun", "-N", "2"], ["krgrun", "-N", "2", "--omp=krg"], ["krgrun", "-N", "4", "--omp=krg"]):
            with self.subTest(where=where):
                yield self.run_program([*where, *program], timeout=120, env={"OMP_NUM_THREADS": str(THREADS)}, check=True)

    def all_the_same(self, made, *program):
        native = None
        for done in self.everywhere(*program):
            result = made.read_bytes() if made else done.stdout
            native = native or result
            self.assertTrue(native)
            self.assertEqual(result, native)

    def test_clustalo_aligns_proteins(self):
        base = self.chance.choices(ACIDS, k=120)
        fasta(self.work / "proteins.fa", [changed(base, 0.25, ACIDS, self.chance)[number % 5:] for number in range(24)])
        self.all_the_same(self.work / "aligned", "clustalo", "-i", "proteins.fa", "-o", "aligned", "--force", f"--threads={THREADS}", "--seqtype=Protein")

    def test_cd_hit_finds_clusters(self):
        bases = [self.chance.choices(ACIDS, k=150) for _ in range(40)]
        fasta(self.work / "proteins.fa", [changed(self.chance.choice(bases), 0.1, ACIDS, self.chance) for _ in range(200)])
        self.all_the_same(self.work / "found.clstr", "cd-hit", "-i", "proteins.fa", "-o", "found", "-c", "0.7", "-T", "2", "-d", "0")

    def test_msgmerge_finds_messages_that_have_changed(self):
        words = ["".join(self.chance.choices("abcdefghij", k=self.chance.randrange(3, 9))) for _ in range(200)]
        old = dict.fromkeys(" ".join(self.chance.choices(words, k=self.chance.randrange(3, 10))) for _ in range(250))
        new = dict.fromkeys(" ".join(changed(text.split(), 0.15, words, self.chance)) for text in old)
        head = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n\n'
        for name, texts, translate in (("old.po", old, str.upper), ("new.pot", new, lambda _: "")):
            (self.work / name).write_text(head + "".join(f'msgid "{text}"\nmsgstr "{translate(text)}"\n\n' for text in texts), encoding="ascii")
        self.all_the_same(None, "msgmerge", "-q", "-o", "-", "old.po", "new.pot")

    def test_par2_repairs_a_file(self):
        data = self.chance.randbytes(400_000)
        file = self.work / "data"
        for where in ([], ["krgrun", "-N", "2"], ["krgrun", "-N", "4", "--omp=krg"]):
            file.write_bytes(data)
            self.run_program([*where, "par2", "create", "-q", "-q", "-s4096", "-r20", f"-t{THREADS}", "data.par2", "data"], timeout=120, check=True)
            damaged = bytearray(data)
            damaged[100_000:120_000] = bytes(20_000)
            file.write_bytes(damaged)
            self.run_program([*where, "par2", "repair", "-q", "-q", f"-t{THREADS}", "data.par2"], timeout=120, check=True)
            self.assertTrue(file.read_bytes() == data, where)
            for left in self.work.glob("data*"):
                left.unlink()


if __name__ == "__main__":
    session_case.main()
