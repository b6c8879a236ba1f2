// SPDX-License-Identifier: GPL-2.0-or-later
#include "proc_sums.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace krg {
namespace {

CpuPlaces all_of(unsigned first, unsigned count, unsigned first_package = 0) {
  CpuNumbers locals(count);
  std::iota(locals.begin(), locals.end(), 0u);
  return {first, locals, first_package};
}

NodeText here(std::string text, CpuPlaces cpus = {}) {
  return {std::move(text), std::move(cpus), true};
}
NodeText other(std::string text, CpuPlaces cpus = {}) {
  return {std::move(text), std::move(cpus), false};
}

// As an Intel machine writes it (proc(5)).
std::string processor(unsigned number, unsigned package) {
  return fmt::format(
      "processor\t: {}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold\n"
      "physical id\t: {}\nsiblings\t: 2\ncore id\t\t: {}\ncpu cores\t: 2\nflags\t\t: fpu vme\n"
      "power management:\n\n",
      number, package, number);
}

TEST(SumCpuinfo, RenumbersProcessorsAndKeepsPackagesApart) {
  std::string machine = processor(0, 0) + processor(1, 0);
  EXPECT_EQ(sum_cpuinfo({here(machine, all_of(0, 2, 0)), other(machine, all_of(2, 2, 1))}),
            processor(0, 0) + processor(1, 0) +
                "processor\t: 2\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold\n"
                "physical id\t: 1\nsiblings\t: 2\ncore id\t\t: 0\ncpu cores\t: 2\n"
                "flags\t\t: fpu vme\npower management:\n\n"
                "processor\t: 3\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold\n"
                "physical id\t: 1\nsiblings\t: 2\ncore id\t\t: 1\ncpu cores\t: 2\n"
                "flags\t\t: fpu vme\npower management:\n\n");
}

TEST(SumCpuinfo, ShowsOnlyTheProcessorsThatANodeHas) {
  std::string machine = processor(0, 0) + processor(1, 0) + processor(2, 0);
  NodeText bound = here(machine, CpuPlaces{5, {1}, 0});
  std::string sum = sum_cpuinfo({bound});
  EXPECT_EQ(sum.find("processor\t: 5\n"), 0u);
  EXPECT_EQ(sum.find("processor", 1), std::string::npos);
  EXPECT_EQ(own_cpuinfo(bound), processor(1, 0));
}

TEST(SumCpuinfo, WhatIsAboutTheMachineIsThisNodes) {
  EXPECT_EQ(sum_cpuinfo({other("processor : 0\nBogoMIPS : 1\n\nHardware : A\n", all_of(0, 1)),
                         here("processor : 0\nBogoMIPS : 2\n\nHardware : B\n", all_of(1, 1))}),
            "processor : 0\nBogoMIPS : 1\n\nprocessor : 1\nBogoMIPS : 2\n\nHardware : B\n\n");
}

TEST(SumCpuinfo, ManyProcessorsAndEmptyNodes) {
  std::string machine;
  for (unsigned cpu = 0; cpu < 512; ++cpu) machine += processor(cpu, cpu / 256);
  std::string sum = sum_cpuinfo({here(machine, all_of(0, 512)), other("", all_of(512, 0)),
                                 other(machine, all_of(512, 512, 2))});
  EXPECT_NE(sum.find("processor\t: 1023\n"), std::string::npos);
  EXPECT_EQ(sum.find("processor\t: 1024\n"), std::string::npos);
  EXPECT_NE(sum.find("physical id\t: 3\n"), std::string::npos);
}

TEST(SumMeminfo, AddsSizesAndKeepsTheColumns) {
  EXPECT_EQ(sum_meminfo({here("MemTotal:       24683656 kB\nMemFree:        24104664 kB\n"
                              "Active(anon):       1568 kB\nVmallocTotal:   34359738367 kB\n"
                              "HugePages_Total:       1\nHugepagesize:       2048 kB\n"),
                         other("MemTotal:       24683656 kB\nMemFree:         1000000 kB\n"
                               "Active(anon):          2 kB\nVmallocTotal:   34359738367 kB\n"
                               "HugePages_Total:       2\nHugepagesize:       2048 kB\n")}),
            "MemTotal:       49367312 kB\nMemFree:        25104664 kB\n"
            "Active(anon):       1570 kB\nVmallocTotal:   34359738367 kB\n"
            "HugePages_Total:       3\nHugepagesize:       2048 kB\n");
}

TEST(SumMeminfo, FieldsThatOnlySomeNodesHaveAreThere) {
  EXPECT_EQ(sum_meminfo({other("MemTotal: 10 kB\nZswap:  3 kB\n"),
                         here("MemTotal: 5 kB\nBuffers: 1 kB\nbroken line\nOdd: x kB\n")}),
            "MemTotal: 15 kB\nBuffers: 1 kB\nZswap:  3 kB\n");
}

TEST(SumStat, AddsCountersAndRenumbersProcessors) {
  std::string text =
      "cpu  10 20 30 40\ncpu0 4 8 12 16\ncpu1 6 12 18 24\nintr 100 1 2 3\nctxt 7\n"
      "btime 1700000000\nprocesses 50\nprocs_running 1\nprocs_blocked 0\nsoftirq 9 1 8\n";
  std::string other_text =
      "cpu  1 2 3 4 5\ncpu0 1 2 3 4 5\nintr 10 1\nctxt 3\nbtime 1800000000\nprocesses 5\n"
      "procs_running 2\nprocs_blocked 1\nsoftirq 1 1 0 4\n";
  EXPECT_EQ(sum_stat({other(other_text, all_of(0, 1)), here(text, all_of(1, 2))}),
            "cpu  11 22 33 44 5\ncpu0 1 2 3 4 5\ncpu1 4 8 12 16\ncpu2 6 12 18 24\n"
            "intr 110 2 2 3\nctxt 10\nbtime 1700000000\nprocesses 55\nprocs_running 3\n"
            "procs_blocked 1\nsoftirq 10 2 8 4\n");
}

TEST(SumStat, ANodeBoundToProcessorsShowsThoseAlone) {
  NodeText bound = here("cpu  10 20\ncpu0 4 8\ncpu1 6 12\nctxt 7\n", CpuPlaces{3, {1}, 0});
  EXPECT_EQ(sum_stat({bound}), "cpu  6 12\ncpu3 6 12\nctxt 7\n");
  EXPECT_EQ(own_stat(bound), "cpu  6 12\ncpu1 6 12\nctxt 7\n");
}

TEST(SumLoadavg, AddsLoadsAndKeepsThisNodesLastPid) {
  EXPECT_EQ(sum_loadavg({other("0.48 0.19 10.06 1/94 8332\n"), here("0.60 1.00 0.99 2/6 77\n")}),
            "1.08 1.19 11.05 3/100 77\n");
  EXPECT_EQ(sum_loadavg({here("")}), "0.00 0.00 0.00 0/0 0\n");
}

TEST(SumUptime, IsThisNodesWithAllIdleTime) {
  EXPECT_EQ(sum_uptime({other("99.50 10.25\n"), here("1882.49 3688.56\n")}), "1882.49 3698.81\n");
}

TEST(SumVmstat, AddsByKey) {
  EXPECT_EQ(sum_vmstat({here("nr_free_pages 10\npgfault 5\n"), other("pgfault 6\nthp_x 1\nbad\n")}),
            "nr_free_pages 10\npgfault 11\nthp_x 1\n");
}

// Whatever the bytes: no crash, and what comes out is stable when it is summed alone again.
TEST(ProcSums, DamagedTextsDoNoHarm) {
  std::mt19937 random(42);
  std::string sample = processor(0, 0) + "cpu  1 2\ncpu0 1 2\nMemTotal:  5 kB\n0.10 0.20 1/2 3\n";
  for (int round = 0; round < 500; ++round) {
    std::string text = sample;
    for (int edits = 0; edits < 20; ++edits)
      text[random() % text.size()] = "\n:  \t0-9c\0x"[random() % 12];
    text.resize(random() % (text.size() + 1));
    std::vector<NodeText> nodes{here(text, all_of(0, 2)), other(sample, all_of(2, 2))};
    for (auto* sum :
         {&sum_cpuinfo, &sum_meminfo, &sum_stat, &sum_loadavg, &sum_uptime, &sum_vmstat}) {
      std::string once = (*sum)(nodes);
      EXPECT_EQ((*sum)({here(once, all_of(0, 4))}), once) << text;
    }
  }
}

}  // namespace
}  // namespace krg
