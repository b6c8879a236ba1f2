// SPDX-License-Identifier: GPL-2.0-or-later
#include "run_options.h"

#include <gtest/gtest.h>

#include "memory_size.h"

using namespace krg;
using namespace std::chrono_literals;

namespace {

Result<RunOptions> parse(std::vector<std::string> words) {
  words.insert(words.begin(), "krgrun");
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  return parse_run_options(static_cast<int>(pointers.size()), pointers.data());
}

TEST(RunOptions, FollowSrunAndStopAtTheProgram) {
  auto run =
      parse({"-N", "4", "-n2", "--caps=+DISTANT_FORK", "-l", "-D", "/tmp", "make", "-j8", "-N9"});
  ASSERT_TRUE(run) << run.error().message();
  EXPECT_EQ(run->nodes, 4u);
  EXPECT_EQ(run->tasks, 2u);
  EXPECT_EQ(run->caps, "+DISTANT_FORK");
  EXPECT_TRUE(run->label);
  EXPECT_EQ(run->directory, "/tmp");
  EXPECT_EQ(run->program, (std::vector<std::string>{"make", "-j8", "-N9"}));
}

TEST(RunOptions, StatisticsAreAskedForAloneOrWithAForm) {
  auto text = parse({"--stats", "prog", "-x"});
  ASSERT_TRUE(text) << text.error().message();
  EXPECT_EQ(text->statistics, StatisticsForm::kText);
  EXPECT_EQ(text->program, (std::vector<std::string>{"prog", "-x"}));
  EXPECT_EQ(parse({"--stats=json", "prog"})->statistics, StatisticsForm::kJson);
  EXPECT_EQ(parse({"prog"})->statistics, StatisticsForm::kNone);
  EXPECT_FALSE(parse({"--stats=xml", "prog"}));
}

TEST(RunOptions, SeveralWritersAreOfOurOpenmpRuntimeOnly) {
  EXPECT_FALSE(parse({"--omp=krg", "prog"})->multiple_writers);
  EXPECT_TRUE(parse({"--omp=krg", "--multiple-writers", "prog"})->multiple_writers);
  EXPECT_TRUE(parse({"--multiple-writers", "prog"})->multiple_writers);
  EXPECT_FALSE(parse({"--omp=native", "--multiple-writers", "prog"}));
}

TEST(RunOptions, TakeDefaultsFromTheEnvironment) {
  setenv("KRGRUN_NODES", "3", 1);
  setenv("KRGRUN_NETWORK", "host", 1);
  setenv("KRGRUN_UNRELATED", "x", 1);
  auto run = parse({"--", "-x"});
  ASSERT_TRUE(run) << run.error().message();
  EXPECT_EQ(run->nodes, 3u);
  EXPECT_FALSE(run->own_network);
  EXPECT_EQ(run->program, std::vector<std::string>{"-x"});
  EXPECT_EQ(parse({"-N2", "true"})->nodes, 2u);
  unsetenv("KRGRUN_NODES");
  unsetenv("KRGRUN_NETWORK");
}

TEST(RunOptions, SayWhatIsWrong) {
  EXPECT_FALSE(parse({}));
  EXPECT_FALSE(parse({"-N0", "true"}));
  EXPECT_FALSE(parse({"--no-such-thing", "true"}));
  EXPECT_FALSE(parse({"--launcher=moon", "true"}));
  EXPECT_FALSE(parse({"-N", "four", "true"}));
  EXPECT_FALSE(parse({"--pty", "-n2", "true"}));
}

TEST(RunOptions, MemorySizesAsSrun) {
  EXPECT_EQ(*parse_memory_size("256M"), 256u << 20);
  EXPECT_EQ(*parse_memory_size("256"), 256u << 20);
  EXPECT_EQ(*parse_memory_size("2G"), uint64_t{2} << 30);
  EXPECT_EQ(*parse_memory_size("2048K"), 2u << 20);
  for (const char* wrong : {"", "M", "1K", "0", "-5M", "5MB", "5X", "99999999999T"})
    EXPECT_FALSE(parse_memory_size(wrong)) << wrong;
  EXPECT_EQ(parse({"--mem-per-node=16M", "true"})->memory_per_node, 16u << 20);
  EXPECT_EQ(parse({"true"})->memory_per_node, 0u);
}

TEST(RunOptions, SharedFilesAreOfAFolder) {
  EXPECT_EQ(parse({"--share-files=/usr/../usr/bin/", "true"})->shared_files, "/usr/bin");
  EXPECT_EQ(parse({"true"})->shared_files, "");
  EXPECT_FALSE(parse({"--share-files=/nowhere/at/all", "true"}));
  EXPECT_FALSE(parse({"--share-files=/proc/version", "true"}));
  EXPECT_FALSE(parse({"--share-files=/", "true"}));
}

TEST(RunOptions, TimeLimitsAsSrun) {
  EXPECT_EQ(*parse_time_limit("5"), 5min);
  EXPECT_EQ(*parse_time_limit("5:30"), 5min + 30s);
  EXPECT_EQ(*parse_time_limit("1:02:03"), 1h + 2min + 3s);
  EXPECT_EQ(*parse_time_limit("2-3"), 51h);
  EXPECT_EQ(*parse_time_limit("1-0:10"), 24h + 10min);
  EXPECT_FALSE(parse_time_limit("soon"));
  EXPECT_FALSE(parse_time_limit(""));
}

TEST(RunOptions, TheOpenmpRuntimeIsChosenByTheProgramUnlessSaid) {
  EXPECT_EQ(parse({"true"})->openmp, OpenmpRuntime::kAuto);
  EXPECT_EQ(parse({"--omp=auto", "true"})->openmp, OpenmpRuntime::kAuto);
  EXPECT_EQ(parse({"--omp=native", "true"})->openmp, OpenmpRuntime::kNative);
  EXPECT_EQ(parse({"--omp", "krg", "true"})->openmp, OpenmpRuntime::kKrg);
  EXPECT_FALSE(parse({"--omp=other", "true"}));
}

TEST(RunOptions, ThreadsComeHomeUnlessTheyAreToStay) {
  EXPECT_TRUE(parse({"true"})->threads_come_home);
  EXPECT_TRUE(parse({"--omp=krg", "--threads=auto", "true"})->threads_come_home);
  EXPECT_FALSE(parse({"--omp=krg", "true"})->threads_come_home);
  EXPECT_FALSE(parse({"--threads", "stay", "true"})->threads_come_home);
  EXPECT_FALSE(parse({"--threads=2", "true"}));
  EXPECT_TRUE(parse({"--threads=stay", "--restart=folder"})->says_threads);
  EXPECT_FALSE(parse({"--omp=krg", "--restart=folder"})->says_threads);
}

}  // namespace
