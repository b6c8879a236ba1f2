// CPU numbers as sysfs writes them (lists "0-3,8", masks "ff,00000000"), and how a node's own
// numbers become the cluster's: node after node, in order. Pure.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krg {

// No machine has more; keeps a damaged text from asking for all memory.
inline constexpr unsigned kMaxCpuNumber = 1u << 20;

// Ascending, without repetition.
using CpuNumbers = std::vector<unsigned>;

// Both forget what they do not understand.
CpuNumbers parse_cpu_list(std::string_view text);
CpuNumbers parse_cpu_mask(std::string_view text);
// "0-3,8"; empty for none.
std::string format_cpu_list(const CpuNumbers& cpus);
// Groups of 32 bits, as many as `cpu_count` CPUs need and at least one.
std::string format_cpu_mask(const CpuNumbers& cpus, unsigned cpu_count);

// Where the CPUs of one node stand in the cluster.
struct CpuPlaces {
  unsigned first = 0;          // cluster number of locals[0]
  CpuNumbers locals;           // the node's own numbers that the cluster shows
  unsigned first_package = 0;  // added to the node's physical package numbers

  std::optional<unsigned> cluster_number(unsigned local) const;
  std::optional<unsigned> local_number(unsigned cluster) const;
  // Drops those that the cluster does not show.
  CpuNumbers to_cluster(const CpuNumbers& locals) const;
  unsigned end() const { return first + static_cast<unsigned>(locals.size()); }
};

}  // namespace krg
