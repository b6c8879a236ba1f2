// SPDX-License-Identifier: GPL-2.0-or-later
#include "cpu_numbers.h"

#include <fmt/format.h>

#include <algorithm>

#include "text_scan.h"

namespace krg {
namespace {

void sort_unique(CpuNumbers& cpus) {
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
}

}  // namespace

CpuNumbers parse_cpu_list(std::string_view text) {
  CpuNumbers cpus;
  text = trimmed(text);
  while (!text.empty()) {
    size_t comma = text.find(',');
    std::string_view range = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
    size_t dash = range.find('-');
    auto first = to_number<unsigned>(range.substr(0, dash));
    auto last =
        dash == std::string_view::npos ? first : to_number<unsigned>(range.substr(dash + 1));
    if (!first || !last || *last >= kMaxCpuNumber) continue;
    for (unsigned cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  }
  sort_unique(cpus);
  return cpus;
}

CpuNumbers parse_cpu_mask(std::string_view text) {
  CpuNumbers cpus;
  text = trimmed(text);
  for (unsigned base = 0; !text.empty() && base < kMaxCpuNumber; base += 32) {
    size_t comma = text.rfind(',');
    std::string_view group = comma == std::string_view::npos ? text : text.substr(comma + 1);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(0, comma);
    uint32_t bits = to_number<uint32_t>(group, 16).value_or(0);
    for (unsigned bit = 0; bit < 32; ++bit)
      if (bits >> bit & 1) cpus.push_back(base + bit);
  }
  return cpus;
}

std::string format_cpu_list(const CpuNumbers& cpus) {
  std::string text;
  for (size_t i = 0; i < cpus.size();) {
    size_t end = i + 1;
    while (end < cpus.size() && cpus[end] == cpus[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += fmt::format("{}", cpus[i]);
    if (end > i + 1) text += fmt::format("-{}", cpus[end - 1]);
    i = end;
  }
  return text;
}

std::string format_cpu_mask(const CpuNumbers& cpus, unsigned cpu_count) {
  std::vector<uint32_t> groups(std::max(1u, (cpu_count + 31) / 32));
  for (unsigned cpu : cpus)
    if (cpu / 32 < groups.size()) groups[cpu / 32] |= 1u << cpu % 32;
  // The kernel writes no more digits of the first group than the CPUs need (bitmap_print).
  unsigned first_bits = cpu_count % 32 == 0 ? 32 : cpu_count % 32;
  std::string text = fmt::format("{:0{}x}", groups.back(), (first_bits + 3) / 4);
  for (size_t i = groups.size() - 1; i-- > 0;) text += fmt::format(",{:08x}", groups[i]);
  return text;
}

std::optional<unsigned> CpuPlaces::cluster_number(unsigned local) const {
  auto found = std::lower_bound(locals.begin(), locals.end(), local);
  if (found == locals.end() || *found != local) return std::nullopt;
  return first + static_cast<unsigned>(found - locals.begin());
}

std::optional<unsigned> CpuPlaces::local_number(unsigned cluster) const {
  if (cluster < first || cluster >= end()) return std::nullopt;
  return locals[cluster - first];
}

CpuNumbers CpuPlaces::to_cluster(const CpuNumbers& of_node) const {
  CpuNumbers cluster;
  for (unsigned local : of_node)
    if (auto number = cluster_number(local)) cluster.push_back(*number);
  return cluster;
}

}  // namespace krg
