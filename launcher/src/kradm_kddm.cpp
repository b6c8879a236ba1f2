// SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_kddm.h"

#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "cluster_finder.h"

namespace krg {
namespace {

// A column of the table of sets: its heading, and the member of kddm.status it sums.
struct Column {
  const char* heading;
  const char* member;
};
constexpr Column kColumns[] = {
    {"OBJECTS", "objects"},
    {"OWNED", "owned"},
    {"GETS", "gets"},
    {"GRABS", "grabs"},
    {"HITS", "local_hits"},
    {"TOUCHES", "first_touches"},
    {"COPIES", "copies_sent"},
    {"OWNERSHIPS", "ownerships_sent"},
    {"INVALID", "invalidations"},
    {"BYTES_SENT", "bytes_sent"},
    {"DROPPED", "copies_dropped"},
    {"EVICTED", "evictions"},
    {"REFETCHED", "refetches"},
};

std::string in_mib(uint64_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1u << 20));
}

std::string format_memory(const nlohmann::json& nodes) {
  std::string text = fmt::format("{:<5} {:>5} {:>10} {:>14} {:>14} {:>12} {:>12}\n", "NODE", "SETS",
                                 "OBJECTS", "MEMORY", "LIMIT", "MESSAGES", "SENT");
  for (const auto& node : nodes) {
    uint64_t objects = 0;
    for (const auto& set : node.at("sets")) objects += set.at("objects").get<uint64_t>();
    const uint64_t limit = node.at("memory_limit").get<uint64_t>();
    text +=
        fmt::format("{:<5} {:>5} {:>10} {:>14} {:>14} {:>12} {:>12}\n",
                    node.at("node").get<unsigned>(), node.at("sets").size(), objects,
                    in_mib(node.at("memory_used").get<uint64_t>()), limit ? in_mib(limit) : "none",
                    node.at("protocol_messages").get<uint64_t>(), node.at("sent").get<uint64_t>());
  }
  return text;
}

}  // namespace

std::string format_kddm(const nlohmann::json& nodes) {
  struct Sum {
    uint64_t object_bytes = 0;
    std::map<std::string, uint64_t> counts;
  };
  std::map<std::string, Sum> sets;
  for (const auto& node : nodes)
    for (const auto& set : node.at("sets")) {
      Sum& sum = sets[set.at("set").get<std::string>()];
      sum.object_bytes = set.at("object_bytes").get<uint64_t>();
      for (const Column& column : kColumns)
        sum.counts[column.member] += set.at(column.member).get<uint64_t>();
    }
  std::string text = format_memory(nodes) + fmt::format("\n{:<16} {:>8}", "SET", "BYTES");
  for (const Column& column : kColumns) text += fmt::format(" {:>10}", column.heading);
  text += '\n';
  for (const auto& [name, sum] : sets) {
    text += fmt::format("{:<16} {:>8}", name, sum.object_bytes);
    for (const Column& column : kColumns)
      text += fmt::format(" {:>10}", sum.counts.at(column.member));
    text += '\n';
  }
  return text;
}

int kradm_kddm(std::span<const std::string> arguments) {
  const bool json = arguments.size() == 1 && arguments[0] == "--json";
  if (!arguments.empty() && !json) {
    fmt::print(stderr, "usage: kradm kddm [--json]\n");
    return 2;
  }
  auto krgd = connect_to_cluster("");
  if (!krgd) {
    fmt::print(stderr, "kradm kddm: {}\n", krgd.error().message());
    return 1;
  }
  auto answer = krgd->call("kddm.status");
  if (!answer) {
    fmt::print(stderr, "kradm kddm: {}\n", answer.error().message());
    return 1;
  }
  const nlohmann::json& result = answer->result;
  fmt::print("{}", json ? result.dump(2) + "\n" : format_kddm(result.at("nodes")));
  return 0;
}

}  // namespace krg
