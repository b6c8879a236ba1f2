// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "krg/procmgr/krg.h"
#include "libkrg_calls.h"

using krg::ask_krgd;
using krg::failed;

int migrate(pid_t pid, int node) {
  if (node < 0) {
    errno = ENODEV;
    return -1;
  }
  auto moved = ask_krgd("migrate", {{"pid", pid}, {"node", node}});
  return moved ? 0 : failed(moved.error());
}

int migrate_self(int node) {
  return migrate(getpid(), node);
}

int get_node_id() {
  auto page = ask_krgd("where", {{"after", getpid() - 1}});
  if (!page) return failed(page.error());
  const auto& found = page->result["processes"];
  if (!found.empty() && found[0].value("pid", 0) == getpid()) return found[0].value("node", -1);
  errno = ESRCH;
  return -1;
}

int get_nr_nodes() {
  int count = 0;
  if (std::ifstream("/proc/nodes/nrnodes") >> count) return count;
  errno = ENOENT;
  return -1;
}
