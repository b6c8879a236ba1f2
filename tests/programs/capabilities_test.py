"""What the capabilities of the original make a shell and a program that forks a tree do.
SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import unittest

import session_case
from session_case import NODES, SessionCase

TREE_PROCESSES = 7


def hosts_of(tree_output):
    """The host of each process of a fork_tree, by its place in the tree."""
    return dict(line.split()[:2] for line in tree_output.splitlines() if re.match(r"0[01]* ", line))


class CapabilitiesTest(SessionCase):
    def tree_after(self, commands):
        """Runs commands in a shell that starts without DISTANT_FORK, then the tree, twice at once: one only
        forks, the other's processes exec, too (as another program: what one's children do is learned). Returns the shell's host and the hosts of both trees."""
        out = self.shell(f"{commands}\n"
                         "cp $(command -v fork_tree) exec_tree; fork_tree | cat >first & ./exec_tree -e | cat >second & wait\n"
                         'echo "shell $HOSTNAME"; cat first second', caps="")
        shell = re.search(r"^shell (\S+)", out, re.M).group(1)
        lines = [line for line in out.splitlines() if line.startswith("0")]
        self.assertEqual(len(lines), 2 * TREE_PROCESSES, out)
        return shell, [hosts_of("\n".join(lines[:TREE_PROCESSES])),
                       hosts_of("\n".join(lines[TREE_PROCESSES:]))]

    def test_nothing_set_keeps_everything_on_the_shells_node(self):
        shell, trees = self.tree_after(":")
        for tree in trees:
            self.assertEqual(set(tree.values()), {shell})

    def test_effective_spreads_the_shells_own_children_only(self):
        shell, trees = self.tree_after("krg_capset -e +DISTANT_FORK")
        for tree in trees:
            self.assertEqual(len(set(tree.values())), 1, tree)
        self.assertGreater(len({shell, trees[0]["0"], trees[1]["0"]}), 1)

    def test_inheritable_effective_spreads_the_descendants(self):
        shell, trees = self.tree_after("krg_capset -d +DISTANT_FORK")
        for tree in trees:
            self.assertEqual(tree["0"], shell)
            self.assertGreater(len(set(tree.values())), 1, tree)

    def test_both_spread_all(self):
        _, trees = self.tree_after("krg_capset -e +DISTANT_FORK -d +DISTANT_FORK")
        for tree in trees:
            self.assertGreater(len(set(tree.values())), 1, tree)
        self.assertGreater(len({host for tree in trees for host in tree.values()}), 2)

    def test_the_option_of_krgrun_sets_both(self):
        for arguments in (["3"], ["-e", "3"]):
            tree = hosts_of(self.krgrun("fork_tree", *arguments, check=True).stdout)
            self.assertEqual(len(tree), 15)
            self.assertGreater(len(set(tree.values())), 2, tree)

    def test_what_a_shell_starts_with(self):
        self.assertEqual(self.shell("krg_capset -l", caps=""),
                         "Permitted Capabilities: 011067\n"
                         "\tCHANGE_KERRIGHED_CAP, CAN_MIGRATE, DISTANT_FORK, CHECKPOINTABLE\n"
                         "\tUSE_REMOTE_MEMORY, SEE_LOCAL_PROC_STAT, DISTANT_THREAD\n"
                         "Effective Capabilities: 01\n"
                         "\tCHANGE_KERRIGHED_CAP\n"
                         "Inheritable Permitted Capabilities: 011067\n"
                         "\tCHANGE_KERRIGHED_CAP, CAN_MIGRATE, DISTANT_FORK, CHECKPOINTABLE\n"
                         "\tUSE_REMOTE_MEMORY, SEE_LOCAL_PROC_STAT, DISTANT_THREAD\n"
                         "Inheritable Effective Capabilities: 01\n"
                         "\tCHANGE_KERRIGHED_CAP")

    def test_sets_are_changed_by_name_and_octal(self):
        out = self.shell("krgcapset -e +DISTANT_FORK -d 05\nkrgcapset -s | grep Effective", caps="")
        self.assertEqual(out.splitlines(), ["Effective Capabilities: 05",
                                            "Inheritable Effective Capabilities: 05"])

    def test_refusals_name_the_reason(self):
        result = self.krgrun("bash", "-c",
                             "krg_capset -e +DEBUG; echo $?; krg_capset -e +NOTHING; echo $?;"
                             "krg_capset -i -DISTANT_FORK -p -DISTANT_FORK; krg_capset -e +DISTANT_FORK;"
                             "echo $?; krg_capset -e 0; krg_capset -e 1; echo $?", caps="")
        self.assertEqual(result.stdout.split(), ["1", "2", "1", "1"], result.stderr)
        self.assertRegex(result.stderr, "DEBUG.*not implemented")
        self.assertRegex(result.stderr, "NOTHING.*no capability")
        self.assertRegex(result.stderr, "effective, but not permitted: DISTANT_FORK")
        self.assertRegex(result.stderr, "not permitted\n.*CHANGE_KERRIGHED_CAP|CHANGE_KERRIGHED_CAP")

    def test_a_process_on_another_node_is_changed_by_pid(self):
        out = self.shell(
            "krg_capset -e +DISTANT_FORK\n"
            f"for i in {{1..{2 * NODES}}}; do sleep 30 & pids=\"$pids $!\"; done\n"
            "sleep 0.5\n"
            'krg_where $pids | while read pid node host command; do echo "$node $command"; done\n'
            "for pid in $pids; do krg_capset $pid -d +SEE_LOCAL_PROC_STAT || echo failed; done\n"
            "for pid in $pids; do krg_capset $pid -l | grep '^Inheritable Eff'; done\n"
            "kill $pids; wait 2>/dev/null", caps="")
        lines = out.splitlines()
        self.assertEqual(lines[2 * NODES:], ["Inheritable Effective Capabilities: 01001"] * 2 * NODES)
        self.assertGreater(len({line.split()[0] for line in lines[:2 * NODES]}), 1)
        self.assertEqual({line.split()[1] for line in lines[:2 * NODES]}, {"sleep"})

    def test_a_shell_can_choose_to_see_its_node_only(self):
        out = self.shell("grep -c ^processor /proc/cpuinfo\n"
                         "krg_capset -d +SEE_LOCAL_PROC_STAT\n"
                         "grep -c ^processor /proc/cpuinfo\n"
                         ":", caps="")  # else the shell becomes the last grep, and it inherits nothing
        cluster, node = (int(count) for count in out.split())
        self.assertEqual(cluster, NODES * node)


if __name__ == "__main__":
    session_case.main()
