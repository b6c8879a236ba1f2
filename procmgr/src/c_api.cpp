// SPDX-License-Identifier: GPL-2.0-or-later
#include <unistd.h>

#include <cerrno>
#include <fstream>

#include "krg/procmgr/krg.h"
#include "krg/runtime/control_client.h"

namespace {

int failed(const krg::Error& error) {
  errno = error.errno_or(EIO);
  return -1;
}

krg::Result<krg::ControlClient::Answer> ask(const char* command, nlohmann::json arguments) {
  auto krgd = krg::ControlClient::connect_to_session();
  if (!krgd) return krgd.error();
  return krgd->call(command, std::move(arguments));
}

}  // namespace

int migrate(pid_t pid, int node) {
  if (node < 0) {
    errno = ENODEV;
    return -1;
  }
  auto moved = ask("migrate", {{"pid", pid}, {"node", node}});
  return moved ? 0 : failed(moved.error());
}

int migrate_self(int node) {
  return migrate(getpid(), node);
}

int get_node_id() {
  auto page = ask("where", {{"after", getpid() - 1}});
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
