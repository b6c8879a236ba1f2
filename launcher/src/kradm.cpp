// kradm: administration of the cluster. One row per command; each command prints its own errors.
// SPDX-License-Identifier: GPL-2.0-or-later
#include <fmt/core.h>

#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kradm_check.h"
#include "kradm_cluster.h"
#include "kradm_kddm.h"
#include "kradm_nodes.h"

namespace krg {
namespace {

struct Command {
  std::string_view name;
  std::string_view usage;
  int (*run)(std::span<const std::string> arguments);  // what follows the name; the exit status
};

constexpr Command kCommands[] = {
    {"check", "check [--json]    what this machine has, what suffers, what mends it", kradm_check},
    {"cluster", "cluster start|stop|status    a cluster that krgrun joins", kradm_cluster},
    {"kddm",
     "kddm [--json]    what shared objects take on each node, and what their sets have done",
     kradm_kddm},
    {"nodes",
     "nodes status [--json]    the cluster's nodes: sockets, cores, memory, NUMA\n"
     "  nodes add|del {-n LIST|-c COUNT|-t TOTAL|-a}    nodes that take processes, or no more",
     kradm_nodes},
};

int print_usage(std::FILE* out, int status) {
  fmt::print(out, "usage: kradm COMMAND\n");
  for (const Command& command : kCommands) fmt::print(out, "  {}\n", command.usage);
  return status;
}

int run(std::span<const std::string> arguments) {
  if (arguments.empty()) return print_usage(stderr, 2);
  if (arguments[0] == "--help" || arguments[0] == "-h") return print_usage(stdout, 0);
  for (const Command& command : kCommands) {
    if (arguments[0] == command.name) return command.run(arguments.subspan(1));
  }
  fmt::print(stderr, "kradm: no such command: {}\n", arguments[0]);
  return print_usage(stderr, 2);
}

}  // namespace
}  // namespace krg

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  return krg::run(arguments);
}
