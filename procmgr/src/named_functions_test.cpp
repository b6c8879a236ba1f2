// SPDX-License-Identifier: GPL-2.0-or-later
#include "named_functions.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace krg {
namespace {

TEST(NamedFunctions, WhatThisProgramCallsIsNamed) {
  ASSERT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // so that waitpid is called
  auto called = names_function("/proc/self/exe", "waitpid");
  ASSERT_TRUE(called.has_value()) << called.error().message();
  EXPECT_TRUE(*called);
  auto other = names_function("/proc/self/exe", "waitpi");
  ASSERT_TRUE(other.has_value());
  EXPECT_FALSE(*other) << "a part of a name";
  auto none = names_function("/proc/self/exe", "no_program_calls_this");
  ASSERT_TRUE(none.has_value());
  EXPECT_FALSE(*none);
}

TEST(NamedFunctions, AFileThatIsNoProgramNamesNothing) {
  auto text = names_function("/proc/self/maps", "ptrace");
  ASSERT_TRUE(text.has_value());
  EXPECT_FALSE(*text);
  EXPECT_FALSE(names_function("/proc/self/no-such-file", "ptrace").has_value());
}

}  // namespace
}  // namespace krg
