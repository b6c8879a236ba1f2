// The texts of /proc/kddm, from what the nodes reported. Pure.
// SPDX-License-Identifier: GPL-2.0-or-later
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "krg/procmgr/kddm_report.h"

namespace krg {

// A set's folder: its id as 16 hexadecimal digits.
std::string kddm_set_name(SetId set);
std::optional<SetId> kddm_set_of(std::string_view name);

// The statistics in the order of their columns, each with its name.
struct NamedCount {
  const char* name;
  uint64_t KddmStatistics::*count;
};
inline constexpr NamedCount kKddmCounts[] = {
    {"objects", &KddmStatistics::objects_here},
    {"owned", &KddmStatistics::objects_owned},
    {"gets", &KddmStatistics::gets},
    {"grabs", &KddmStatistics::grabs},
    {"local_hits", &KddmStatistics::local_hits},
    {"first_touches", &KddmStatistics::first_touches},
    {"copies_sent", &KddmStatistics::copies_sent},
    {"ownerships_sent", &KddmStatistics::ownerships_sent},
    {"invalidations", &KddmStatistics::invalidations_received},
    {"bytes_sent", &KddmStatistics::bytes_sent},
    {"copies_dropped", &KddmStatistics::copies_dropped},
    {"evictions", &KddmStatistics::evictions},
    {"refetches", &KddmStatistics::refetches},
};

// meminfo: a line per node, then the sum.
std::string kddm_meminfo(const KddmReport::NodeReports& reports);
// setstat: a line per set, summed over the nodes; of one set: a line per node, then the sum.
std::string kddm_setstat(const KddmReport::NodeReports& reports);
std::string kddm_setstat(const KddmReport::NodeReports& reports, SetId set);
std::string kddm_setinfo(const KddmReport::NodeReports& reports, SetId set);
// objectstates: a line per state of the protocol, a column per node.
std::string kddm_objectstates(const std::map<NodeId, KddmReport::StateCounts>& states);

}  // namespace krg
