// What sysfs says about one processor of a node, in the cluster's numbers. Pure.
// Source: Documentation/admin-guide/cputopology.rst,
// Documentation/ABI/testing/sysfs-devices-system-cpu. SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <string>
#include <string_view>

#include "cpu_numbers.h"
#include "krg/runtime/types.h"

namespace krg {

// The text of `path` below a processor's directory ("topology/core_cpus", "cache/index3/id").
// `cpu_count`: processors of the cluster, which decides how long masks are.
std::string cluster_cpu_text(std::string_view path, std::string_view text, NodeId node,
                             const CpuPlaces& places, unsigned cpu_count);

}  // namespace krg
