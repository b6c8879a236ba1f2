// SPDX-License-Identifier: GPL-2.0-or-later
#include "woken_runs.h"

#include <gtest/gtest.h>

using namespace krg;

namespace {

constexpr uint64_t kSpace = 3;

ProgramFault fault(uint64_t space, uint64_t page, bool write) {
  ProgramFault fault{};
  fault.at = {space, RemoteAddr{page * kPageBytes}};
  fault.write = write;
  return fault;
}

TEST(WokenRuns, HasThePagesOfItsRunsAndNoOthers) {
  WokenRuns runs;
  runs.begin(5);
  runs.add({kSpace, RemoteAddr{10 * kPageBytes}}, 4, true);
  runs.add({kSpace, RemoteAddr{20 * kPageBytes}}, 1, true);
  for (uint64_t page : {10, 13, 20}) EXPECT_TRUE(runs.has(fault(kSpace, page, true))) << page;
  for (uint64_t page : {0, 9, 14, 19, 21})
    EXPECT_FALSE(runs.has(fault(kSpace, page, true))) << page;
  EXPECT_FALSE(runs.has(fault(kSpace + 1, 10, true)));
  EXPECT_FALSE(runs.has(fault(kSpace - 1, 10, true)));
}

TEST(WokenRuns, WhoWantsToWriteIsNotServedByWhatMayBeRead) {
  WokenRuns runs;
  runs.begin(2);
  runs.add({kSpace, RemoteAddr{10 * kPageBytes}}, 1, false);
  EXPECT_TRUE(runs.has(fault(kSpace, 10, false)));
  EXPECT_FALSE(runs.has(fault(kSpace, 10, true)));
  runs.add({kSpace, RemoteAddr{10 * kPageBytes}}, 1, true);
  EXPECT_TRUE(runs.has(fault(kSpace, 10, true)));
}

TEST(WokenRuns, ATurnKnowsNothingOfTheOneBefore) {
  WokenRuns runs;
  runs.begin(2);
  runs.add({kSpace, RemoteAddr{10 * kPageBytes}}, 1, true);
  runs.begin(0);
  EXPECT_FALSE(runs.has(fault(kSpace, 10, true)));
  runs.begin(1);
  runs.add({kSpace, RemoteAddr{10 * kPageBytes}}, 1, true);
  EXPECT_FALSE(runs.has(fault(kSpace, 10, true)));
}

}  // namespace
