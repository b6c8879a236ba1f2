// SPDX-License-Identifier: GPL-2.0-or-later
#include "krg/procmgr/pid_range.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "krg/procmgr/process_table.h"

namespace krg {
namespace {

TEST(PidRange, NodesShareThePidSpaceWithoutOverlap) {
  for (unsigned nodes : {1u, 2u, 3u, 4u, 63u, 64u, 65u, 256u, 4096u}) {
    pid_t previous_end = 0;
    for (unsigned n = 0; n < nodes; ++n) {
      PidRange range(NodeId{static_cast<uint16_t>(n)}, nodes);
      EXPECT_EQ(range.first(), previous_end);
      EXPECT_EQ(range.origin(GlobalPid{range.first() + 1}).value, n);
      EXPECT_EQ(range.origin(GlobalPid{range.end() - 1}).value, n);
      EXPECT_TRUE(range.is_local(GlobalPid{range.end() - 1}));
      EXPECT_FALSE(range.is_local(GlobalPid{range.end()}));
      previous_end = range.end();
    }
    EXPECT_LE(previous_end, 1 << kPidBits) << nodes << " nodes";
  }
}

TEST(ProcessStartTime, IsKnownForLivingProcessesOnly) {
  EXPECT_GT(process_start_time(getpid()), 0u);
  EXPECT_EQ(process_start_time(1 << kPidBits), 0u);
}

}  // namespace
}  // namespace krg
