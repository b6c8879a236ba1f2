// SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_nodes.h"

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "cluster_finder.h"
#include "kradm_nodes_change.h"

namespace krg {
namespace {

constexpr const char* kNodesUsage =
    "usage: kradm nodes status [--json]\n"
    "       kradm nodes add|del {-n LIST | -c COUNT | -t TOTAL | -a}\n";

std::string in_gib(uint64_t bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1u << 30));
}

std::string format_numa(const nlohmann::json& numa) {
  std::string text;
  for (const auto& node : numa) {
    text += fmt::format("{}{}: {} processors, {}", text.empty() ? "" : "; ",
                        node.at("index").get<unsigned>(), node.at("processors").get<unsigned>(),
                        in_gib(node.at("memory_bytes").get<uint64_t>()));
  }
  return text;
}

int print_status(bool json) {
  auto krgd = connect_to_cluster("");
  if (!krgd) {
    fmt::print(stderr, "kradm nodes: {}\n", krgd.error().message());
    return 1;
  }
  auto answer = krgd->call("nodes.status");
  if (!answer) {
    fmt::print(stderr, "kradm nodes: {}\n", answer.error().message());
    return 1;
  }
  const nlohmann::json& result = answer->result;
  fmt::print("{}", json ? result.dump(2) + "\n" : format_nodes(result.at("nodes")));
  return 0;
}

}  // namespace

std::string format_nodes(const nlohmann::json& nodes) {
  std::string text =
      fmt::format("{:<5} {:<12} {:<7} {:>7} {:>6} {:>10} {:>11}  {}\n", "NODE", "HOST", "STATE",
                  "SOCKETS", "CORES", "PROCESSORS", "MEMORY", "NUMA");
  unsigned sockets = 0, cores = 0, processors = 0, online = 0;
  uint64_t memory_bytes = 0;
  for (const auto& node : nodes) {
    const unsigned id = node.at("node").get<unsigned>();
    const std::string state = node.at("state").get<std::string>();
    if (state == "failed") {
      text += fmt::format("{:<5} {:<12} {}\n", id, "", state);
      continue;
    }
    if (state == "online") {
      ++online;
      sockets += node.at("sockets").get<unsigned>();
      cores += node.at("cores").get<unsigned>();
      processors += node.at("processors").get<unsigned>();
      memory_bytes += node.at("memory_bytes").get<uint64_t>();
    }
    text +=
        fmt::format("{:<5} {:<12} {:<7} {:>7} {:>6} {:>10} {:>11}  {}\n", id,
                    node.at("host").get<std::string>(), state, node.at("sockets").get<unsigned>(),
                    node.at("cores").get<unsigned>(), node.at("processors").get<unsigned>(),
                    in_gib(node.at("memory_bytes").get<uint64_t>()), format_numa(node.at("numa")));
  }
  return text + fmt::format("{:<18} {:<7} {:>7} {:>6} {:>10} {:>11}\n", "sum", online, sockets,
                            cores, processors, in_gib(memory_bytes));
}

int kradm_nodes(std::span<const std::string> arguments) {
  if (!arguments.empty() && arguments[0] == "add")
    return kradm_change_nodes(NodeChange::kAdd, arguments.subspan(1));
  if (!arguments.empty() && arguments[0] == "del")
    return kradm_change_nodes(NodeChange::kDelete, arguments.subspan(1));
  if (arguments.empty() || arguments[0] != "status" || arguments.size() > 2 ||
      (arguments.size() == 2 && arguments[1] != "--json")) {
    fmt::print(stderr, "{}", kNodesUsage);
    return 2;
  }
  return print_status(arguments.size() == 2);
}

}  // namespace krg
