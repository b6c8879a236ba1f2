// SPDX-License-Identifier: GPL-2.0-or-later
#include "kddm_texts.h"

#include <fmt/format.h>

#include <charconv>
#include <set>

namespace krg {
namespace {

void add(KddmStatistics& sum, const KddmStatistics& more) {
  for (const NamedCount& named : kKddmCounts) sum.*named.count += more.*named.count;
}

std::string header(const char* first) {
  std::string line = fmt::format("{:<17}", first);
  for (const NamedCount& named : kKddmCounts) line += fmt::format(" {:>15}", named.name);
  return line + '\n';
}

std::string row(std::string_view first, const KddmStatistics& statistics) {
  std::string line = fmt::format("{:<17}", first);
  for (const NamedCount& named : kKddmCounts)
    line += fmt::format(" {:>15}", statistics.*named.count);
  return line + '\n';
}

std::string memory_row(std::string_view first, uint64_t sets, uint64_t objects, uint64_t used,
                       uint64_t limit) {
  return fmt::format("{:<8} {:>8} {:>12} {:>12} {:>12}\n", first, sets, objects, used >> 10,
                     limit >> 10);
}

}  // namespace

std::string kddm_set_name(SetId set) {
  return fmt::format("{:016x}", set.value);
}

std::optional<SetId> kddm_set_of(std::string_view name) {
  SetId set;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data(), end, set.value, 16);
  if (error != std::errc() || at != end || kddm_set_name(set) != name) return std::nullopt;
  return set;
}

std::string kddm_meminfo(const KddmReport::NodeReports& reports) {
  std::string text = fmt::format("{:<8} {:>8} {:>12} {:>12} {:>12}\n", "node", "sets", "objects",
                                 "used_kB", "limit_kB");
  uint64_t all_objects = 0, all_used = 0, all_limits = 0;
  std::set<uint64_t> all_sets;
  for (const auto& [node, report] : reports) {
    uint64_t objects = 0;
    for (const auto& set : report.sets) {
      objects += set.statistics.objects_here;
      all_sets.insert(set.info.id.value);
    }
    text += memory_row(std::to_string(node.value), report.sets.size(), objects, report.memory_used,
                       report.memory_limit);
    all_objects += objects;
    all_used += report.memory_used;
    all_limits += report.memory_limit;
  }
  return text + memory_row("sum", all_sets.size(), all_objects, all_used, all_limits);
}

std::string kddm_setstat(const KddmReport::NodeReports& reports) {
  std::map<SetId, KddmStatistics> sums;
  for (const auto& [node, report] : reports)
    for (const auto& set : report.sets) add(sums[set.info.id], set.statistics);
  std::string text = header("set");
  for (const auto& [set, statistics] : sums) text += row(kddm_set_name(set), statistics);
  return text;
}

std::string kddm_setstat(const KddmReport::NodeReports& reports, SetId set) {
  std::string text = header("node");
  KddmStatistics sum;
  for (const auto& [node, report] : reports)
    for (const auto& of_set : report.sets) {
      if (of_set.info.id != set) continue;
      add(sum, of_set.statistics);
      text += row(std::to_string(node.value), of_set.statistics);
    }
  return text + row("sum", sum);
}

std::string kddm_setinfo(const KddmReport::NodeReports& reports, SetId set) {
  const KddmSetInfo* info = nullptr;
  std::string nodes;
  for (const auto& [node, report] : reports)
    for (const auto& of_set : report.sets) {
      if (of_set.info.id != set) continue;
      info = &of_set.info;
      nodes += fmt::format("{}{}", nodes.empty() ? "" : " ", node.value);
    }
  if (!info) return {};
  return fmt::format("set: {}\nobject_bytes: {}\nobjects_per_manager: {}\nhome: {}\nnodes: {}\n",
                     kddm_set_name(set), info->object_bytes, info->objects_per_manager,
                     info->home == kNoNode ? "none" : std::to_string(info->home.value), nodes);
}

std::string kddm_objectstates(const std::map<NodeId, KddmReport::StateCounts>& states) {
  std::set<std::string> names;
  std::string text = fmt::format("{:<17}", "state");
  for (const auto& [node, counts] : states) {
    text += fmt::format(" {:>10}", fmt::format("node{}", node.value));
    for (const auto& [name, count] : counts) names.insert(name);
  }
  text += '\n';
  for (const std::string& name : names) {
    text += fmt::format("{:<17}", name);
    for (const auto& [node, counts] : states) {
      auto found = counts.find(name);
      text += fmt::format(" {:>10}", found == counts.end() ? 0 : found->second);
    }
    text += '\n';
  }
  return text;
}

}  // namespace krg
