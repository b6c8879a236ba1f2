// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpu_texts.h"

#include <fmt/format.h>

#include "text_scan.h"

namespace krg {
namespace {

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_cpu_list(std::string_view name) {
  return ends_with(name, "_cpus_list") || ends_with(name, "_siblings_list") ||
         name == "shared_cpu_list";
}

bool is_cpu_mask(std::string_view name) {
  return ends_with(name, "_cpus") || ends_with(name, "_siblings") || name == "shared_cpu_map";
}

// Numbers that programs take for unique in the machine. Caches of a node are told apart from those
// of the others by its number in upper bits; -1 ("none") stays.
std::string raised(std::string_view text, unsigned by) {
  auto number = to_number<unsigned>(trimmed(text));
  return number ? fmt::format("{}\n", *number + by) : std::string(text);
}

}  // namespace

std::string cluster_cpu_text(std::string_view path, std::string_view text, NodeId node,
                             const CpuPlaces& places, unsigned cpu_count) {
  std::string_view name = path.substr(path.rfind('/') + 1);
  if (is_cpu_list(name)) return format_cpu_list(places.to_cluster(parse_cpu_list(text))) + '\n';
  if (is_cpu_mask(name))
    return format_cpu_mask(places.to_cluster(parse_cpu_mask(text)), cpu_count) + '\n';
  if (name == "physical_package_id") return raised(text, places.first_package);
  if (path.substr(0, 6) == "cache/" && name == "id")
    return raised(text, static_cast<unsigned>(node.value) << 16);
  return std::string(text);
}

}  // namespace krg
