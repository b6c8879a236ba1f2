// SPDX-License-Identifier: GPL-2.0-or-later
#include "pid_texts.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

namespace krg {
namespace {

// proc(5): 52 fields; parent 1, group and session 200, no terminal, started 5000 ticks after boot,
// last on processor 1.
std::string stat_of(std::string_view command) {
  return fmt::format(
      "200 ({}) S 1 200 200 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 5000 3133440 409 "
      "18446744073709551615 1 1 0 0 0 0 0 0 65536 1 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
      command);
}
const PidIdentity kIdentity{.pid = 200,
                            .parent = 70,
                            .group = 65,
                            .session = 60,
                            .tty = 34816,
                            .foreground_group = 65,
                            .start_epoch_ns = 0};

TEST(PidStat, ReadsTheRelatives) {
  auto stat = parse_pid_stat(stat_of("cat"));
  ASSERT_TRUE(stat);
  EXPECT_EQ(stat->parent, 1);
  EXPECT_EQ(stat->group, 200);
  EXPECT_EQ(stat->foreground_group, -1);
  EXPECT_EQ(stat->flags, 4194560u);
  EXPECT_EQ(stat->start_ticks, 5000u);
}

TEST(PidStat, CommandsMayHoldAnything) {
  for (std::string command :
       {"a) S 9 9", "x y", "two\nlines", "(sd-pam)", ")", "((", "tab\there", ""}) {
    std::string text = rewrite_pid_stat(stat_of(command), kIdentity, 123);
    auto stat = parse_pid_stat(text);
    ASSERT_TRUE(stat) << command;
    EXPECT_EQ(text.find("200 (" + command + ") S 70 65 60 34816 65 4194560 "), 0u) << text;
    EXPECT_EQ(stat->start_ticks, 123u);
    EXPECT_NE(text.find(" 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"), std::string::npos) << text;
  }
}

TEST(PidStat, NothingElseChanges) {
  PidIdentity same{.pid = 200,
                   .parent = 1,
                   .group = 200,
                   .session = 200,
                   .tty = 0,
                   .foreground_group = -1,
                   .start_epoch_ns = 0};
  EXPECT_EQ(rewrite_pid_stat(stat_of("cat"), same, std::nullopt), stat_of("cat"));
  EXPECT_EQ(shift_pid_stat(stat_of("cat"), {}), stat_of("cat"));
}

TEST(PidStat, ShiftsClockAndProcessor) {
  std::string text = shift_pid_stat(stat_of("cat"), {.start_ticks = -4000, .first_cpu = 6});
  EXPECT_EQ(parse_pid_stat(text)->start_ticks, 1000u);
  EXPECT_NE(text.find(" 17 7 0 "), std::string::npos) << text;
  EXPECT_EQ(
      parse_pid_stat(shift_pid_stat(text, {.start_ticks = -4000, .first_cpu = 0}))->start_ticks,
      0u);
}

TEST(PidStat, WhatIsNoStatStaysAsItIs) {
  for (std::string text : {"", "garbage", "1 (x", "1 (x) S 1 2", ")"}) {
    EXPECT_FALSE(parse_pid_stat(text));
    EXPECT_EQ(rewrite_pid_stat(text, kIdentity, 1), text);
    EXPECT_EQ(shift_pid_stat(text, {1, 1}), text);
  }
}

TEST(PidStat, DamagedTextsDoNoHarm) {
  std::mt19937 random(3);
  for (int round = 0; round < 1000; ++round) {
    std::string text = stat_of("a b");
    for (int edits = 0; edits < 10; ++edits)
      text[random() % text.size()] = static_cast<char>(random() % 256);
    text.resize(random() % (text.size() + 1));
    std::string rewritten = rewrite_pid_stat(text, kIdentity, 1);
    if (parse_pid_stat(text)) {
      EXPECT_EQ(parse_pid_stat(rewritten)->parent, 70) << text;
    } else {
      EXPECT_EQ(rewritten, text);
    }
  }
}

TEST(PidStatus, RewritesTheRelativesOnly) {
  EXPECT_EQ(rewrite_pid_status("Name:\ta\\nPPid: 1\nTgid:\t200\nPid:\t200\nPPid:\t1\nNSpid:\t200\n"
                               "NSpgid:\t200\nNSsid:\t200\nVmPeak:\t    3060 kB\n",
                               kIdentity),
            "Name:\ta\\nPPid: 1\nTgid:\t200\nPid:\t200\nPPid:\t70\nNSpid:\t200\n"
            "NSpgid:\t65\nNSsid:\t60\nVmPeak:\t    3060 kB\n");
  EXPECT_EQ(rewrite_pid_status("", kIdentity), "");
}

TEST(Ticks, AreRoundedAndNeverNegative) {
  EXPECT_EQ(ticks_since_boot(1'000'014'000'000, 1'000'000'000'000, 100), 1u);
  EXPECT_EQ(ticks_since_boot(1'000'016'000'000, 1'000'000'000'000, 100), 2u);
  EXPECT_EQ(ticks_since_boot(5, 1'000'000'000'000, 100), 0u);
}

}  // namespace
}  // namespace krg
