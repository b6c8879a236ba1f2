// SPDX-License-Identifier: GPL-2.0-or-later
#include "spread_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace krg {
namespace {

using nlohmann::json;

json process_with(size_t regions) {
  json process = {{"pid", 7},
                  {"command", "solver"},
                  {"threads", json::array({{{"tid", 8}, {"faults", 3}, {"fault_ms", 1.5}}})},
                  {"regions", json::array()},
                  {"false_sharing", json::array({{{"text", "grid of solver share a page"}}})}};
  for (size_t i = 0; i < regions; ++i)
    process["regions"].push_back({{"name", "region" + std::to_string(i)},
                                  {"wait_ms", 0.5},
                                  {"bytes", 8192},
                                  {"ping_pong", 6}});
  return json::array({process});
}

TEST(SpreadReport, NamesThreadsMemoryAndFalseSharing) {
  const std::string text = format_spread_report(process_with(1));
  EXPECT_NE(text.find("solver (pid 7)"), std::string::npos);
  EXPECT_NE(text.find("  8         3          1.5"), std::string::npos) << text;
  EXPECT_NE(text.find("region0\n"), std::string::npos);
  EXPECT_NE(text.find("False sharing: grid of solver share a page\n"), std::string::npos);
}

TEST(SpreadReport, NamesParallelRegionsByTheirLines) {
  json processes = process_with(1);
  EXPECT_EQ(format_spread_report(processes).find("parallel region"), std::string::npos);
  processes[0]["parallel"] =
      json::array({{{"region", {{"name", "sweep._omp_fn.0 of solver"}, {"line", "solver.c:12"}}},
                    {"faults", 9}},
                   {{"region", {{"name", "norm._omp_fn.1 of solver"}}},
                    {"barrier", {{"name", "norm._omp_fn.1+7 of solver"}, {"line", "solver.c:30"}}}},
                   {{"region", {{"name", "norm._omp_fn.1 of solver"}}},
                    {"barrier", {{"name", "GOMP_parallel+51 of libgomp.so.1"}}}},
                   {{"region", {{"name", ""}}}, {"team_calls", 4}}});
  const std::string text = format_spread_report(processes);
  EXPECT_NE(text.find("  solver.c:12 (sweep._omp_fn.0 of solver)\n"), std::string::npos) << text;
  EXPECT_NE(text.find("  norm._omp_fn.1 of solver, behind the barrier at solver.c:30\n"),
            std::string::npos);
  EXPECT_NE(text.find("  norm._omp_fn.1 of solver, behind its last barrier\n"), std::string::npos);
  EXPECT_NE(text.find("  outside of parallel regions\n"), std::string::npos);
}

TEST(SpreadReport, LeavesOutTheLeastOfManyRegions) {
  const std::string text = format_spread_report(process_with(20));
  EXPECT_NE(text.find("region14\n"), std::string::npos);
  EXPECT_EQ(text.find("region15\n"), std::string::npos);
  EXPECT_NE(text.find("and 5 more"), std::string::npos);
}

TEST(SpreadReport, SaysThatThereIsNothing) {
  EXPECT_EQ(format_spread_report(json::array()),
            "krgrun: no process had threads on several nodes\n");
}

}  // namespace
}  // namespace krg
