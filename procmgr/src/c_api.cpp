// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "krg/procmgr/krg.h"
#include "libkrg_calls.h"

using krg::ask_krgd;
using krg::failed;

int migrate(pid_t pid, int node) {
  if (node < 0) return failed(ENODEV);
  auto moved = ask_krgd("migrate", {{"pid", pid}, {"node", node}});
  return moved ? 0 : failed(moved.error());
}

int migrate_self(int node) {
  return migrate(getpid(), node);
}

int thread_migrate(pid_t thread, int node) {
  return migrate(thread, node);  // numbers of processes and threads are one kind
}

int get_node_id() {
  auto page = ask_krgd("where", {{"after", getpid() - 1}});
  if (!page) return failed(page.error());
  const auto& found = page->result["processes"];
  if (!found.empty() && found[0].value("pid", 0) == getpid()) return found[0].value("node", -1);
  return failed(ESRCH);
}

int get_nr_nodes() {
  int count = 0;
  if (std::ifstream("/proc/nodes/nrnodes") >> count) return count;
  return failed(ENOENT);
}
