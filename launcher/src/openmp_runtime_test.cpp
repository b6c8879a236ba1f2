// SPDX-License-Identifier: GPL-2.0-or-later
#include "openmp_runtime.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

using namespace krg;

namespace {

bool has(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST(OpenmpRuntime, VersionsAreReadFromFiles) {
  const auto needed = versions_needed("/proc/self/exe", "libc.so.6");
  ASSERT_TRUE(needed) << needed.error().message();
  EXPECT_TRUE(has(*needed, "GLIBC_2.2.5"));
  EXPECT_TRUE(versions_needed("/proc/self/exe", "libgomp.so.1")->empty());
  EXPECT_FALSE(versions_needed("/no/such/file", "libc.so.6"));
  const auto defined = versions_defined(std::string(KRG_OMP_LIBRARY));
  ASSERT_TRUE(defined) << defined.error().message();
  EXPECT_TRUE(has(*defined, "GOMP_1.0"));
  EXPECT_TRUE(has(*defined, "OMP_5.1"));
  EXPECT_FALSE(has(*defined, "GLIBC_2.2.5"));
}

TEST(OpenmpRuntime, FilesOfOtherKindsNeedNothing) {
  const auto script =
      std::filesystem::temp_directory_path() / ("krg-openmp-" + std::to_string(getpid()) + ".sh");
  for (const char* content :
       {"#!/bin/sh\n", "", "\177ELF", "\177ELF\2\1\1 and then nothing of use"}) {
    std::ofstream(script) << content;
    const auto needed = versions_needed(script, "libgomp.so.1");
    ASSERT_TRUE(needed);
    EXPECT_TRUE(needed->empty());
  }
  std::filesystem::remove(script);
}

TEST(OpenmpRuntime, TheFolderComesFirstAndTheRestStays) {
  const auto folder = std::filesystem::path(KRG_OMP_LIBRARY).parent_path();
  setenv("KRG_LIBEXEC_DIR", folder.parent_path().c_str(), 1);
  std::vector<std::string> environment = {"PATH=/bin", "LD_LIBRARY_PATH=/a:/b"};
  ASSERT_TRUE(use_libkrgomp(environment, "sh"));
  EXPECT_TRUE(has(environment, "LD_LIBRARY_PATH=" + folder.string() + ":/a:/b"));
  EXPECT_EQ(environment.size(), 2u);
  environment = {"A=1"};
  ASSERT_TRUE(use_libkrgomp(environment, "/no/such/program"));
  EXPECT_TRUE(has(environment, "LD_LIBRARY_PATH=" + folder.string()));
  setenv("KRG_LIBEXEC_DIR", "/no/such/folder", 1);
  environment = {"A=1"};
  EXPECT_FALSE(use_libkrgomp(environment, "sh"));
  EXPECT_EQ(environment.size(), 1u);
}

}  // namespace
