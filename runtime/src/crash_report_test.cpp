// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/runtime/crash_report.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <fstream>

namespace krg {
namespace {

void crash(int signal) {
  const rlimit no_core{0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  install_crash_report("thing");
  raise(signal);
}

TEST(CrashReportDeathTest, SaysWhatHappenedAndDiesOfIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(crash(SIGSEGV), testing::KilledBySignal(SIGSEGV),
              "thing crashed: Segmentation fault, in the calls\n.*crash_report_test");
  EXPECT_EXIT(crash(SIGBUS), testing::KilledBySignal(SIGBUS), "thing crashed: Bus error");
}

TEST(CrashReportDeathTest, TellsTheAddressOfAFault) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto fault = [] {
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    install_crash_report("thing");
    volatile uintptr_t nowhere = 0x1230;
    *reinterpret_cast<volatile char*>(nowhere) = 1;
  };
  EXPECT_EXIT(fault(), testing::KilledBySignal(SIGSEGV),
              "thing crashed: Segmentation fault at 0x1230, in the calls");
}

TEST(CrashReport, IsFoundInALog) {
  std::string name = testing::TempDir() + "crash_report_XXXXXX";
  const int file = mkstemp(name.data());
  ASSERT_GE(file, 0);
  close(file);
  EXPECT_EQ(last_crash(name), "");
  std::ofstream(name)
      << "started\nkrgd crashed: Aborted, in the calls\na\nkrgd crashed: Bus error, in\nb\n";
  EXPECT_EQ(last_crash(name), "krgd crashed: Bus error, in\nb");
  EXPECT_EQ(end_of_log(name), "a\nkrgd crashed: Bus error, in\nb");
  unlink(name.c_str());
  EXPECT_EQ(last_crash(name), "");
  EXPECT_EQ(end_of_log(name), "");
}

}  // namespace
}  // namespace krg
