// SPDX-License-Identifier: GPL-2.0-or-later
#include "kradm_kddm.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace krg {
namespace {

nlohmann::json set_of(const char* name, uint64_t objects) {
  nlohmann::json set = {{"set", name}, {"object_bytes", 4096}, {"objects", objects}};
  for (const char* count :
       {"owned", "gets", "grabs", "local_hits", "first_touches", "copies_sent", "ownerships_sent",
        "invalidations", "bytes_sent", "copies_dropped", "evictions", "refetches"})
    set[count] = objects + 1;
  return set;
}

TEST(KradmKddm, ShowsNodesAndTheSumOfEachSet) {
  nlohmann::json nodes = nlohmann::json::array();
  for (unsigned n = 0; n < 2; ++n)
    nodes.push_back(
        {{"node", n},
         {"memory_used", 3u << 20},
         {"memory_limit", n << 20},
         {"protocol_messages", 77},
         {"sent", 55},
         {"sets", {set_of("000000000000000a", 10 + n), set_of("000000000000000b", 1)}}});
  const std::string text = format_kddm(nodes);
  EXPECT_NE(text.find("1         2         12        3.0 MiB        1.0 MiB"), std::string::npos)
      << text;
  EXPECT_NE(text.find("3.0 MiB           none"), std::string::npos) << text;
  EXPECT_NE(text.find("000000000000000a     4096         21         23"), std::string::npos)
      << text;
}

}  // namespace
}  // namespace krg
