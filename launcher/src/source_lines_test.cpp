// SPDX-License-Identifier: GPL-2.0-or-later
#include "source_lines.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <link.h>
#include <unistd.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace krg {

constexpr int kLineOfFunction = __LINE__ + 1;
extern "C" void krg_test_function() {}

namespace {

using nlohmann::json;

json region_of(const std::string& file, uint64_t address) {
  const json place = {{"file", file}, {"address", address}};
  return json::array(
      {{{"parallel", json::array({{{"region", place}, {"barrier", {{"name", ""}}}}})}}});
}

uint64_t own_address() {
  Dl_info found{};
  link_map* map = nullptr;
  const auto function = reinterpret_cast<void*>(&krg_test_function);
  if (dladdr1(function, &found, reinterpret_cast<void**>(&map), RTLD_DL_LINKMAP) == 0) return 0;
  return reinterpret_cast<uint64_t>(function) - map->l_addr;
}

TEST(SourceLines, AreToldWhereThereIsDebugInformation) {
  if (system("addr2line --version > /dev/null 2>&1") != 0) return;  // then there are no lines
  json processes = region_of("/proc/self/exe", own_address());
  add_source_lines(processes);  // addr2line's own /proc/self/exe: nothing is known
  EXPECT_FALSE(processes[0]["parallel"][0]["region"].contains("line"));
  char path[4096] = "";
  ASSERT_GT(readlink("/proc/self/exe", path, sizeof path - 1), 0);
  processes = region_of(path, own_address());
  add_source_lines(processes);
  EXPECT_EQ(processes[0]["parallel"][0]["region"].value("line", ""),
            "source_lines_test.cpp:" + std::to_string(kLineOfFunction));
}

TEST(SourceLines, NothingIsSaidOfAFileThatIsNotThere) {
  json processes = region_of("/no/such 'file'; false", 16);
  add_source_lines(processes);
  EXPECT_FALSE(processes[0]["parallel"][0]["region"].contains("line"));
}

}  // namespace
}  // namespace krg
