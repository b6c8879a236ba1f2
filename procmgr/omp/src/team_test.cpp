// Teams of which a part is on another node, which a TeamTransport plays here; and teams without
// one. SPDX-License-Identifier: GPL-2.0-or-later
#include "team.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

using namespace krg::omp;
using namespace std::chrono_literals;

extern "C" {
bool GOMP_single_start();
void GOMP_barrier();
}

namespace {

// A node whose members arrive some time after ours, and that takes every second single for itself.
class OtherNode : public TeamTransport {
 public:
  ~OtherNode() override {
    for (std::thread& one : answers_) one.join();
  }
  void begin_elsewhere(Team&) override { ++begun; }
  void arrived_here(Team& team, BarrierKind kind) override {
    answers_.emplace_back([this, &team, kind] {
      std::this_thread::sleep_for(5ms);
      (kind == BarrierKind::end ? ends : barriers) += 1;
      release_generation(team, kind);
    });
  }
  bool claims_single(Team&, std::uint32_t number) override { return number % 2 == 0; }

  int begun = 0;
  std::atomic<int> barriers{0}, ends{0};

 private:
  std::vector<std::thread> answers_;
};

struct Seen {
  std::atomic<int> numbers{0}, singles{0}, early{0}, members{0};
  OtherNode* other = nullptr;
};

void run_member(void* data) {
  Seen& seen = *static_cast<Seen*>(data);
  const Thread& thread = this_thread();
  ++seen.members;
  seen.numbers |= 1 << thread.at.number;
  for (int i = 0; i < 4; ++i) {
    if (GOMP_single_start()) ++seen.singles;
    GOMP_barrier();
    if (seen.other != nullptr && seen.other->barriers <= i) ++seen.early;
  }
}

TEST(Team, BarriersWaitForTheOtherNode) {
  OtherNode other;
  Seen seen;
  seen.other = &other;
  // Numbers 0 and 1 of four are here.
  parallel(run_member, &seen, 2, 0, [&](Team& team) {
    team.size = 4;
    team.transport = &other;
  });
  EXPECT_EQ(seen.members, 2);
  EXPECT_EQ(seen.numbers, 3);
  EXPECT_EQ(seen.early, 0);
  EXPECT_EQ(other.begun, 1);
  EXPECT_EQ(other.barriers, 4);
  EXPECT_EQ(other.ends, 1);
}

TEST(Team, OneNodeExecutesASingle) {
  OtherNode other;
  Seen seen;
  parallel(run_member, &seen, 3, 0, [&](Team& team) {
    team.size = 6;
    team.transport = &other;
  });
  EXPECT_EQ(seen.singles, 2);
}

TEST(Team, RegionsAlternateBetweenBothKinds) {
  for (int round = 0; round < 20; ++round) {
    OtherNode other;
    Seen seen;
    const bool spread = round % 3 == 0;
    const unsigned here = 1 + unsigned(round) % 5;
    parallel(run_member, &seen, here, 0, [&](Team& team) {
      if (!spread) return;
      team.size = here + 2;
      team.transport = &other;
    });
    EXPECT_EQ(seen.members, int(here));
    EXPECT_EQ(seen.singles, spread ? 2 : 4);
    EXPECT_EQ(other.ends, spread ? 1 : 0);
  }
}

TEST(Team, SizesFollowTheControlVariables) {
  Icvs& icvs = this_thread().at.task->icvs;
  const Icvs kept = icvs;
  icvs.threads = 5;
  EXPECT_EQ(team_size(0, 0), 5u);
  EXPECT_EQ(team_size(7, 0), 7u);
  EXPECT_EQ(team_size(1, 0), 1u);
  icvs.max_active_levels = 0;
  EXPECT_EQ(team_size(7, 0), 1u);
  icvs = kept;
}

}  // namespace
